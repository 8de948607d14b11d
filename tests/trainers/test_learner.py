from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainer_toys import toy_context, toy_model, toy_view

from genrec.trainers.hardware import Hardware
from genrec.trainers.learner import EpochLoader, parameter_groups
from genrec.trainers.simple import SimpleTrainer

PLAN: Any = list(range(10))


def test_weight_decay_spares_norms_and_biases() -> None:
    model = toy_model()
    decayed, spared = parameter_groups(model)
    assert {id(p) for p in decayed["params"]} == {id(model.items.weight), id(model.out.weight)}
    assert spared["weight_decay"] == 0.0
    decayed, spared = parameter_groups(model, decay_embeddings=False)
    assert [id(p) for p in decayed["params"]] == [id(model.out.weight)]
    assert len(spared["params"]) == 4


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2, bias=False).requires_grad_(False)
    assert parameter_groups(model) == []


@pytest.mark.parametrize("ahead", [False, True])
def test_the_loader_starts_anywhere_and_keeps_the_order(ahead: bool) -> None:
    assert list(EpochLoader(PLAN, ahead=ahead)) == PLAN
    assert list(EpochLoader(PLAN, start=7, ahead=ahead)) == [7, 8, 9]
    assert list(EpochLoader(PLAN, start=10, ahead=ahead)) == []


def test_processes_share_the_batches_evenly() -> None:
    parts = [list(EpochLoader(PLAN, rank=rank, world_size=3)) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert list(EpochLoader(PLAN, start=1, rank=2, world_size=3)) == [5, 8]


def test_an_error_while_cutting_ahead_is_raised() -> None:
    class Failing:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> torch.Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(EpochLoader(Failing(), ahead=True))


def test_gradients_are_clipped_for_a_fused_optimizer_in_mixed_precision(tmp_path: Path) -> None:
    """With a bound of almost nothing and plain SGD, the weights hardly move."""
    moved = {}
    for bound in (1e-6, None):
        model = toy_model()
        before = model.items.weight.detach().clone()
        context = toy_context(
            tmp_path / str(bound),
            hardware=Hardware(accelerator="cpu", precision="bf16-mixed"),
            optimizer=functools.partial(torch.optim.SGD, lr=1.0, fused=True),
        )
        SimpleTrainer(max_epochs=1, batch_size=64, gradient_clip_norm=bound).fit(model, toy_view(), context)
        moved[bound] = float((model.items.weight.detach() - before).norm())
    assert 0 < moved[1e-6] < 1e-4 < 1e-2 < moved[None]
