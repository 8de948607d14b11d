from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec
from genrec.models.autoint import AutoInt
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestAutoInt(RowContract):
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return AutoInt(spec, embedding_dim=4, attention_dim=4)


class TestAutoIntPlus(RowContract):
    def build(self, spec: DataSpec) -> nn.Module:
        return AutoInt(spec, embedding_dim=4, attention_dim=4, num_layers=1, hidden_dims=[16])


@pytest.mark.parametrize("hidden_dims", [[], [5]])
def test_attends_to_all_fields_dense_ones_among_them(hidden_dims: list[int]) -> None:
    model = rough(AutoInt(row_spec(), embedding_dim=3, attention_dim=2, num_layers=2, hidden_dims=hidden_dims))
    batch = row_batch(4)
    found = model.predict(batch)["click"]
    for row in range(4):
        pooled = naive_fields(model.fields, batch, row)
        dense = [value * vector for value, vector in zip(batch.dense[row], model.dense_vectors.weight, strict=True)]
        vectors = torch.stack(pooled + dense)[None]
        for layer in model.layers:
            vectors = layer(vectors)
        logit = model.bias + model.output(vectors.flatten())
        if hidden_dims:
            logit = logit + model.deep(torch.cat([*pooled, batch.dense[row]]))
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-4)
