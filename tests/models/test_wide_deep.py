from __future__ import annotations

import torch
from torch import nn

from genrec.contracts import DataSpec
from genrec.models.wide_deep import WideDeep
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestWideDeep(RowContract):
    def build(self, spec: DataSpec) -> nn.Module:
        return WideDeep(spec, embedding_dim=4, hidden_dims=[16])


class TestNormalisedWideDeep(RowContract):
    def build(self, spec: DataSpec) -> nn.Module:
        return WideDeep(spec, embedding_dim=4, hidden_dims=[16], batch_norm=True)


def test_equals_first_order_weights_plus_a_network() -> None:
    model = rough(WideDeep(row_spec(), embedding_dim=3, hidden_dims=[5]))
    batch = row_batch(6)
    found = model.predict(batch)["click"]
    for row in range(6):
        fields = naive_fields(model.fields, batch, row)
        inputs = torch.cat([field[:3] for field in fields] + [batch.dense[row]])
        wide = sum(field[3] for field in fields) + batch.dense[row] @ model.wide.dense
        torch.testing.assert_close(found[row], torch.sigmoid(model.bias[0] + wide + model.deep(inputs)[0]))
