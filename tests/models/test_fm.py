from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec
from genrec.models.fm import FM
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestFM(RowContract):
    def build(self, spec: DataSpec) -> nn.Module:
        return FM(spec, embedding_dim=4)


def test_equals_the_sum_over_all_pairs() -> None:
    model = rough(FM(row_spec(), embedding_dim=3))
    batch = row_batch(6)
    found = model.predict(batch)["click"]
    for row in range(6):
        fields = naive_fields(model.fields, batch, row)
        vectors, linear = [field[:3] for field in fields], [field[3] for field in fields]
        for place, value in enumerate(batch.dense[row]):
            vectors.append(value * model.machine.dense[place])
            linear.append(value * model.machine.first_order.dense[place])
        logit = model.bias[0] + sum(linear)
        for i in range(len(vectors)):
            for j in range(i + 1, len(vectors)):
                logit = logit + vectors[i] @ vectors[j]
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-4)
