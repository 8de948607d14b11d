from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.base_rate import BaseRate
from tests.models.row_contract import RowContract, base_risk, risk, row_batch, row_spec

TASKS = ("click", "rating")


class TestBaseRate(RowContract):
    LEARNS = 1.001

    def build(self, spec: DataSpec) -> nn.Module:
        return BaseRate(spec)


def test_predicts_the_training_means() -> None:
    found = BaseRate(row_spec(TASKS)).predict(row_batch(3, tasks=TASKS))
    labels = row_batch(tasks=TASKS).labels
    torch.testing.assert_close(found["click"], labels[:, 0].mean().expand(3))
    torch.testing.assert_close(found["rating"], labels[:, 1].nanmean().expand(3))


def test_no_other_constant_has_a_lower_loss() -> None:
    batch, spec = row_batch(), row_spec()
    model = BaseRate(spec)
    best = risk(model, batch, spec)["click"]
    assert best == pytest.approx(base_risk(batch, spec)["click"], rel=1e-5)
    for shift in (-0.02, 0.02):
        other = BaseRate(spec)
        other.means += shift
        assert risk(other, batch, spec)["click"] > best


def test_needs_a_table() -> None:
    with pytest.raises(GenrecError, match="Choose a table"):
        BaseRate(DataSpec(num_users=1, num_items=5))
