from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from genrec.contracts import GenrecError
from genrec.schedulers import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)

ALL = [
    Constant,
    Linear,
    Cosine,
    CosineRestarts,
    Polynomial,
    OneCycle,
    Cyclic,
    InverseSqrt,
    Exponential,
    Step,
    MultiStep,
    Plateau,
]


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
        (MultiStep(milestones=[10, 30], gamma=0.5, warmup_steps=5), 34, 1 / 2),  # counted from the end of warm-up
        (Linear(total_steps=50), 25, 1 / 2),
        (Linear(total_steps=50, warmup_ratio=0.2, min_lr_ratio=0.1), 70, 0.1),  # and stays there
        (Linear(total_steps=50, warmup_ratio=0.2), 10, 1.0),  # the ratio is of total_steps
        (CosineRestarts(cycle_length=20), 19, (1 + math.cos(math.pi * 19 / 20)) / 2),
        (CosineRestarts(cycle_length=20), 20, 1.0),
        (CosineRestarts(cycle_length=20), 50, 1 / 2),
        (CosineRestarts(cycle_length=20, min_lr_ratio=0.2), 30, 0.6),
        (CosineRestarts(cycle_length=20, warmup_steps=5), 35, 1 / 2),
        (CosineRestarts(cycle_length=10, cycle_mult=2), 10, 1.0),  # cycles begin at 0, 10, 30, 70
        (CosineRestarts(cycle_length=10, cycle_mult=2), 20, 1 / 2),
        (CosineRestarts(cycle_length=10, cycle_mult=2), 50, 1 / 2),
        (CosineRestarts(cycle_length=10, gamma=0.5), 20, 1 / 4),  # the peak of the third cycle
        (CosineRestarts(cycle_length=10, gamma=0.5, min_lr_ratio=0.1), 15, 0.1 + 0.4 / 2),
        (OneCycle(start_ratio=0.2, rising=0.4), 0, 0.2),
        (OneCycle(start_ratio=0.2, rising=0.4), 20, 0.6),  # half way up
        (OneCycle(start_ratio=0.2, rising=0.4), 40, 1.0),
        (OneCycle(start_ratio=0.2, rising=0.4), 70, 1 / 2),  # half way down
        (OneCycle(start_ratio=0.2, rising=0.4, min_lr_ratio=0.1), 70, 0.55),
        (OneCycle(start_ratio=0.2, rising=0.4, min_lr_ratio=0.1), 100, 0.1),
        (OneCycle(start_ratio=0.2, rising=0.4, warmup_steps=20), 9, 0.1),  # half of warm-up, which ends at 0.2
        (OneCycle(start_ratio=0.2, rising=0.4, warmup_steps=20), 52, 1.0),
        (Cyclic(cycle_length=20, start_ratio=0.2), 0, 0.2),
        (Cyclic(cycle_length=20, start_ratio=0.2), 5, 0.6),
        (Cyclic(cycle_length=20, start_ratio=0.2), 10, 1.0),
        (Cyclic(cycle_length=20, start_ratio=0.2), 15, 0.6),
        (Cyclic(cycle_length=20, start_ratio=0.2), 20, 0.2),
        (Cyclic(cycle_length=20, start_ratio=0.2, gamma=0.5), 30, 0.6),  # the second triangle is half as high
        (Cyclic(cycle_length=20, start_ratio=0.2, min_lr_ratio=0.5), 5, 0.75),
        (Plateau(min_lr_ratio=0.5), 50, 1.0),
        (Constant(), 0, 1.0),
    ],
)
def test_known_values(schedule: Schedule, step: int, expected: float) -> None:
    assert schedule.factor(step, 100) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_warm_up_ignored_for_some_scheduler_types(kind: Any) -> None:
    by_steps, by_ratio = kind(warmup_steps=10), kind(warmup_ratio=0.1)
    for schedule in (by_steps, by_ratio):
        begin = schedule.factor(10, 100)  # 1 but for the two that begin below the full rate
        assert begin == pytest.approx({OneCycle: 0.04, Cyclic: 0.1}.get(kind, 1.0))
        ramp = [schedule.factor(step, 100) for step in (0, 4, 9)]
        assert ramp == pytest.approx([0.1 * begin, 0.5 * begin, begin])
    assert kind(warmup_steps=0).factor(0, 100) == pytest.approx({OneCycle: 0.04, Cyclic: 0.1}.get(kind, 1.0))


@pytest.mark.parametrize("kind", ALL)
def test_the_floor_holds_for_every_type(kind: Any) -> None:
    schedule = kind(min_lr_ratio=0.25)
    for _ in range(40):
        schedule.on_metric(0.0, "max")
    rates = [schedule.factor(step, 100_000) for step in range(0, 200_000, 500)]
    assert min(rates) >= 0.25 and max(rates) <= 1
    warm = kind(min_lr_ratio=0.25, warmup_steps=1000)
    assert min(warm.factor(step, 100_000) for step in range(999, 200_000, 500)) >= 0.25


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


def rates_of(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        (Step(step_size=7, gamma=0.3), "StepLR", {"step_size": 7, "gamma": 0.3}),
        (MultiStep(milestones=[4, 9], gamma=0.3), "MultiStepLR", {"milestones": [4, 9], "gamma": 0.3}),
        (Exponential(decay_rate=0.9, decay_steps=1), "ExponentialLR", {"gamma": 0.9}),
        (Cosine(min_lr_ratio=0.1), "CosineAnnealingLR", {"T_max": 60, "eta_min": 0.1}),
        (Polynomial(power=3), "PolynomialLR", {"total_iters": 60, "power": 3}),
        (Linear(min_lr_ratio=0.1), "LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 60}),
        (
            CosineRestarts(cycle_length=5, cycle_mult=2, min_lr_ratio=0.1),
            "CosineAnnealingWarmRestarts",
            {"T_0": 5, "T_mult": 2, "eta_min": 0.1},
        ),
        (
            Cyclic(cycle_length=8, start_ratio=0.2, gamma=0.5),
            "CyclicLR",
            {"base_lr": 0.2, "max_lr": 1.0, "step_size_up": 4, "mode": "triangular2", "cycle_momentum": False},
        ),
    ],
)
def test_equals_torch_where_torch_has_it(schedule: Schedule, name: str, options: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    assert [schedule.factor(step, 60) for step in range(50)] == pytest.approx(rates_of(reference, optimizer, 50))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Cosine, {"warmup_steps": -1}),
        (Cosine, {"warmup_ratio": 1.0}),
        (Cosine, {"min_lr_ratio": 2.0}),
        (Cosine, {"interval": "batch"}),
        (Linear, {"total_steps": 0}),
        (Polynomial, {"power": 0}),
        (OneCycle, {"start_ratio": 0.0}),
        (OneCycle, {"rising": 1.0}),
        (Exponential, {"decay_rate": 1.5}),
        (Exponential, {"decay_steps": 0}),
        (Step, {"step_size": 0}),
        (Step, {"gamma": 0.0}),
        (MultiStep, {"milestones": []}),
        (MultiStep, {"milestones": [0, 5]}),
        (MultiStep, {"gamma": 2.0}),
        (CosineRestarts, {"cycle_length": 0}),
        (CosineRestarts, {"cycle_mult": 0}),
        (CosineRestarts, {"gamma": 1.5}),
        (Cyclic, {"cycle_length": 1}),
        (Cyclic, {"start_ratio": 1.5}),
        (Cyclic, {"gamma": 0.0}),
        (Plateau, {"lr_factor": 1.0}),
        (Plateau, {"lr_patience": -1}),
        (Plateau, {"threshold": -0.1}),
    ],
)
def test_impossible_values_are_refused_by_their_key(kind: Any, options: Any) -> None:
    (name,) = options
    with pytest.raises(GenrecError, match=rf"^scheduler\.{name}="):
        kind(**options)
