from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.deepfm import DeepFM
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestDeepFM(RowContract):
    LEARNS = 0.7

    def build(self, spec: DataSpec) -> nn.Module:
        return DeepFM(spec, embedding_dim=4, hidden_dims=[16])


class TestDeepFMOfValues(RowContract):
    TASKS = ("rating",)
    LEARNS = 0.3

    def build(self, spec: DataSpec) -> nn.Module:
        return DeepFM(spec, embedding_dim=4, hidden_dims=[16], batch_norm=True, embedding_l2=1e-4)


def test_equals_pairs_plus_a_network_of_the_same_vectors() -> None:
    model = rough(DeepFM(row_spec(), embedding_dim=3, hidden_dims=[5]))
    batch = row_batch(6)
    found = model.predict(batch)["click"]
    for row in range(6):
        fields = naive_fields(model.fields, batch, row)
        vectors, logit = [field[:3] for field in fields], model.bias[0] + sum(field[3] for field in fields)
        inputs = torch.cat([*vectors, batch.dense[row]])
        vectors += [value * vector for value, vector in zip(batch.dense[row], model.machine.dense, strict=True)]
        logit = logit + batch.dense[row] @ model.machine.first_order.dense + model.deep(inputs)[0]
        logit = logit + sum(vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i))
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-4)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = rough(DeepFM(row_spec(), embedding_dim=4, hidden_dims=[16], dropout=0.5)).train()
    batch = row_batch(20)
    assert not torch.equal(model.loss(batch).total, model.loss(batch).total)
    assert torch.equal(model.predict(batch)["click"], model.predict(batch)["click"])


def test_sparse_gradients_are_the_dense_ones() -> None:
    batch = row_batch(30)
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = DeepFM(row_spec(), embedding_dim=4, hidden_dims=[8], sparse_gradients=sparse, embedding_l2=0.1)
        model.loss(batch).total.backward()
        gradient = model.fields.weight.grad
        assert gradient is not None and gradient.is_sparse == sparse
        found.append(gradient.to_dense())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "arguments",
    [{"embedding_dim": 0}, {"hidden_dims": [0]}, {"dropout": 1.0}, {"embedding_l2": -1.0}, {"batch_norm": 1}],
)
def test_mistakes_are_named(arguments: dict) -> None:
    with pytest.raises(GenrecError, match=next(iter(arguments))):
        DeepFM(row_spec(), **arguments)
