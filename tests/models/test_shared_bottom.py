from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.shared_bottom import SharedBottom
from tests.models.row_contract import RowContract, row_batch, row_spec
from tests.nn.test_experts import expert_of, tower_of

TASKS = ("click", "like", "rating")


class TestSharedBottom(RowContract):
    TASKS = TASKS
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return SharedBottom(spec, embedding_dim=4, bottom_dims=[16], tower_dims=[8])


class TestLinearTowers(RowContract):
    TASKS = ("click", "like")
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return SharedBottom(spec, embedding_dim=4, bottom_dims=[16, 8], tower_dims=[])


def test_equals_a_bottom_and_a_loop_of_towers() -> None:
    torch.manual_seed(0)
    model = SharedBottom(row_spec(TASKS), embedding_dim=4, bottom_dims=[8, 6], tower_dims=[5])
    batch = row_batch(16, tasks=TASKS)
    fields = model.fields(batch)
    bottom = expert_of(model.bottom, 0, model.inputs(fields, batch))
    expected = torch.stack([tower_of(model.towers, task, bottom) for task in range(3)], dim=1)
    torch.testing.assert_close(model.logits(fields, batch), expected)


def test_only_towers_and_their_biases_are_private() -> None:
    model = SharedBottom(row_spec(TASKS), embedding_dim=4, bottom_dims=[8, 6], tower_dims=[5])
    private = {id(weight) for weight in model.private_parameters()}
    names = {name.split(".")[0] for name, weight in model.named_parameters() if id(weight) in private}
    assert names == {"bias", "towers"}
    [last] = model.last_shared()
    assert last.shape == (1, 6, 8)  # of the layer from 8 to 6


def test_the_loss_of_one_task_leaves_the_towers_of_others() -> None:
    model = SharedBottom(row_spec(TASKS), embedding_dim=4, bottom_dims=[8], tower_dims=[])
    losses, _ = model.task_losses(row_batch(16, tasks=TASKS))
    losses["like"].backward()
    gradient = model.towers.output.weight.grad
    assert gradient is not None
    assert [bool(rows.any()) for rows in gradient] == [False, True, False]


def test_a_bottom_without_layers_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"model\.bottom_dims=\[\]"):
        SharedBottom(row_spec(TASKS), bottom_dims=[])
