from __future__ import annotations

from typing import Any

import pytest
import torch

from genrec.contracts import GenrecError
from genrec.schedulers import (
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)

ALL = [Constant, Linear, Cosine, Polynomial, InverseSqrt, Exponential, Step, MultiStep, Plateau]


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (Constant(), 99, 1.0),
        (Linear(), 0, 1.0),
        (Linear(), 25, 3 / 4),
        (Linear(), 100, 0.0),
        (Linear(min_lr_ratio=0.2), 50, 0.2 + 0.8 / 2),
        (Linear(warmup_steps=20), 60, 1 / 2),  # 40 of the 80 steps after warm-up
        (Cosine(), 50, 1 / 2),
        (Cosine(), 25, (1 + 2**-0.5) / 2),
        (Cosine(min_lr_ratio=0.1), 100, 0.1),
        (Polynomial(), 50, 1 / 4),
        (InverseSqrt(), 3, 1 / 2),
        (InverseSqrt(warmup_steps=25), 100, 25**0.5 / 10),
        (Exponential(decay_rate=0.5, decay_steps=10), 20, 1 / 4),
        (Exponential(decay_rate=0.5, decay_steps=10, min_lr_ratio=0.3), 20, 0.3),
        (Step(step_size=10, gamma=0.1), 9, 1.0),
        (Step(step_size=10, gamma=0.1), 20, 0.01),
        (MultiStep(milestones=[10, 30], gamma=0.5), 29, 1 / 2),
        (MultiStep(milestones=[10, 30], gamma=0.5), 30, 1 / 4),
    ],
)
def test_known_values(schedule: Schedule, step: int, expected: float) -> None:
    assert schedule.factor(step, 100) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_warm_up_ignored_for_some_scheduler_types(kind: Any) -> None:
    by_steps, by_ratio = kind(warmup_steps=10), kind(warmup_ratio=0.1)
    for schedule in (by_steps, by_ratio):
        assert [schedule.factor(step, 100) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert kind(warmup_steps=0).factor(0, 100) == 1.0


@pytest.mark.parametrize("kind", ALL)
def test_the_floor_holds_for_every_type(kind: Any) -> None:
    schedule = kind(min_lr_ratio=0.25)
    for _ in range(40):
        schedule.on_metric(0.0, "max")
    assert min(schedule.factor(step, 100_000) for step in range(0, 200_000, 500)) >= 0.25


def test_a_scheduler_without_step_size_crashes_fit() -> None:
    for kind in ALL:
        assert 0 <= kind().factor(5, 10) <= 1


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_equals_torch(mode: str) -> None:
    values = [0.5, 0.6, 0.6, 0.6, 0.59, 0.61, 0.61, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.31, 0.3, 0.2]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=2, min_lr=0.1)  # pyright: ignore[reportArgumentType]
    schedule = Plateau(lr_factor=0.5, lr_patience=2, min_lr_ratio=0.1)
    for value in values:
        reference.step(value)
        schedule.on_metric(value, mode)
        assert schedule.factor(0, 10) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.factor(0, 10) < 1


def test_plateau_state_survives_saving() -> None:
    schedule = Plateau(lr_patience=0)
    schedule.on_metric(1.0, "max")
    schedule.on_metric(1.0, "max")
    copy = Plateau(lr_patience=0)
    copy.load_state_dict(schedule.state_dict())
    assert copy.factor(0, 1) == schedule.factor(0, 1) == 0.5


@pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"warmup_ratio": 1.0}, {"min_lr_ratio": 2.0}])
def test_impossible_values_are_refused(options: Any) -> None:
    with pytest.raises(GenrecError, match=next(iter(options))):
        Cosine(**options)
