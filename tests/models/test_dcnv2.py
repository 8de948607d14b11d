from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.dcnv2 import DCNv2
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestDCNv2(RowContract):
    LEARNS = 0.8

    def build(self, spec: DataSpec) -> nn.Module:
        return DCNv2(spec, embedding_dim=4, hidden_dims=[16])


class TestStackedLowRankDCNv2(RowContract):
    LEARNS = 0.7

    def build(self, spec: DataSpec) -> nn.Module:
        return DCNv2(spec, embedding_dim=4, hidden_dims=[16], structure="stacked", rank=4, num_experts=2)


def test_parallel_is_a_linear_map_of_both_outputs_side_by_side() -> None:
    model = rough(DCNv2(row_spec(), embedding_dim=3, hidden_dims=[5], num_cross_layers=2))
    batch = row_batch(4)
    found = model.predict(batch)["click"]
    last = torch.cat([model.output.weight, model.deep.output.weight], dim=1)[0]
    for row in range(4):
        first = torch.cat([*naive_fields(model.fields, batch, row), batch.dense[row]])
        crossed = first
        for layer in model.crosses:
            products = layer.linear.weight @ crossed
            crossed = torch.stack(
                [first[i] * (products[i] + layer.linear.bias[i]) + crossed[i] for i in range(len(first))]
            )
        logit = last @ torch.cat([crossed, model.deep.hidden(first)]) + model.deep.output.bias[0] + model.bias[0]
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-4)


def test_stacked_gives_the_crosses_to_the_network() -> None:
    model = rough(DCNv2(row_spec(), embedding_dim=3, hidden_dims=[5], num_cross_layers=2, structure="stacked"))
    batch = row_batch(4)
    first = crossed = model.inputs(model.fields(batch), batch)
    for layer in model.crosses:
        crossed = layer(first, crossed)
    torch.testing.assert_close(model.predict(batch)["click"], torch.sigmoid(model.bias + model.deep(crossed))[:, 0])


def test_every_layer_has_weights_and_gates_of_its_own() -> None:
    model = DCNv2(row_spec(), rank=4, num_experts=3, num_cross_layers=2)
    first, second = model.crosses
    assert not {id(weight) for weight in first.parameters()} & {id(weight) for weight in second.parameters()}
    assert not torch.equal(first.gate.weight, second.gate.weight)  # pyright: ignore


@pytest.mark.parametrize("arguments", [{"structure": "beside"}, {"rank": 0}, {"num_cross_layers": 0}])
def test_mistakes_are_named(arguments: dict) -> None:
    with pytest.raises(GenrecError, match=next(iter(arguments))):
        DCNv2(row_spec(), **arguments)
