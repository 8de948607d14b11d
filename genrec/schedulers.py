"""Learning-rate schedules: the factor on the optimizer's own rate as a pure function of the step.

Step 0 is the first step. Every schedule warms up linearly (the step before the end of warm-up runs at the full rate of
the schedule's begin, and no step runs at rate zero because of it), and never falls below ``min_lr_ratio`` once warm.

``interval`` says what a step is: "step" an optimizer step, "epoch" an epoch, through which the rate then stays the
same. Every count (``warmup_steps``, ``total_steps``, ``decay_steps``, ``step_size``, ``milestones``, ``cycle_length``)
is in this unit; all but the first two begin to count when warm-up is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from genrec.annotations import Count, Natural, NotNegative, Positive, Rate, Share, check_fields


@dataclass(kw_only=True)
class Schedule:
    """A schedule without decay, and the base of the others.

    ``warmup_steps`` counts steps of ``interval``; ``warmup_ratio``, when given, is a share of all steps and takes its
    place. ``min_lr_ratio`` is a share of the optimizer's rate.
    """

    interval: Literal["step", "epoch"] = "step"
    warmup_steps: Natural = 0
    warmup_ratio: Rate | None = None
    min_lr_ratio: Share = 0.0

    follows_metric = False  # True: told the monitored metric after each validation

    def __post_init__(self) -> None:
        check_fields(self, "scheduler")

    def num_warmup_steps(self, total_steps: int) -> int:
        return self.warmup_steps if self.warmup_ratio is None else round(self.warmup_ratio * self.horizon(total_steps))

    def horizon(self, total_steps: int) -> int:
        """The step at which the schedule is at its end, of a run of ``total_steps``."""
        return total_steps

    def factor(self, step: int, total_steps: int) -> float:
        """What the rate is multiplied by at ``step`` (from 0) of ``total_steps``."""
        warmup = self.num_warmup_steps(total_steps)
        span = max(self.horizon(total_steps) - warmup, 1)
        if step < warmup:
            return (step + 1) / warmup * self.floored(self.shape(0, span, warmup))
        return self.floored(self.shape(step - warmup, span, warmup))

    def shape(self, step: int, span: int, warmup: int) -> float:
        """The decay at ``step`` after warm-up, ``span`` steps from warm-up to the end."""
        return 1.0

    def floored(self, value: float) -> float:
        return max(value, self.min_lr_ratio)

    def on_metric(self, value: float, mode: str) -> None:
        """Told the monitored metric after each validation; only ``Plateau`` listens."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass(kw_only=True)
class Constant(Schedule):
    """The full rate throughout, after warm-up."""


# ---- decays that know where the end is ------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _ToTheEnd(Schedule):
    """Decays that reach ``min_lr_ratio`` exactly at the end rather than being cut off at it.

    The end is that of the run, or ``total_steps`` (warm-up included), after which the rate stays where it is.
    """

    total_steps: Count | None = None

    def horizon(self, total_steps: int) -> int:
        return self.total_steps or total_steps

    def floored(self, value: float) -> float:
        return self.min_lr_ratio + (1.0 - self.min_lr_ratio) * value


@dataclass(kw_only=True)
class Linear(_ToTheEnd):
    """A straight line down to ``min_lr_ratio``."""

    def shape(self, step: int, span: int, warmup: int) -> float:
        return max(1.0 - step / span, 0.0)


@dataclass(kw_only=True)
class Cosine(_ToTheEnd):
    """Half a cosine down to ``min_lr_ratio`` (Loshchilov and Hutter, arXiv 1608.03983, one period)."""

    def shape(self, step: int, span: int, warmup: int) -> float:
        return _half_cosine(step / span)


@dataclass(kw_only=True)
class Polynomial(_ToTheEnd):
    """``(1 - progress) ** power`` down to ``min_lr_ratio``."""

    power: Positive = 2.0

    def shape(self, step: int, span: int, warmup: int) -> float:
        return max(1.0 - step / span, 0.0) ** self.power


@dataclass(kw_only=True)
class OneCycle(_ToTheEnd):
    """Up from ``start_ratio`` of the rate to all of it, then down to ``min_lr_ratio`` (Smith, arXiv 1708.07120).

    ``rising`` is the share of the steps that go up; both ways are half a cosine. Warm-up, where there is any, comes
    before and ends at ``start_ratio``.
    """

    start_ratio: Annotated[float, Gt(0), Le(1)] = 0.04
    rising: Annotated[float, Gt(0), Lt(1)] = 0.3

    def shape(self, step: int, span: int, warmup: int) -> float:
        progress, low = step / span, max(self.start_ratio, self.min_lr_ratio)
        if progress < self.rising:
            return 1.0 - (1.0 - low) * _half_cosine(progress / self.rising)
        falling = _half_cosine((progress - self.rising) / (1.0 - self.rising))
        return self.min_lr_ratio + (1.0 - self.min_lr_ratio) * falling

    def floored(self, value: float) -> float:
        return value  # the shape is on the final scale, since its two ends differ


def _half_cosine(progress: float) -> float:
    """1 at progress 0, 1/2 at 1/2, 0 from 1 on."""
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


# ---- decays that do not ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class InverseSqrt(Schedule):
    """``sqrt(w / (w + t))`` at t steps after the warm-up of w (1 where there is none), as T5 (arXiv 1910.10683)."""

    def shape(self, step: int, span: int, warmup: int) -> float:
        start = max(warmup, 1)
        return math.sqrt(start / (start + step))


@dataclass(kw_only=True)
class Exponential(Schedule):
    """``decay_rate ** (step / decay_steps)``."""

    decay_rate: Annotated[float, Gt(0), Le(1)] = 0.95
    decay_steps: Count = 1000

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.decay_rate ** (step / self.decay_steps)


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiplied by ``gamma`` every ``step_size`` steps."""

    step_size: Count = 1000
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.gamma ** (step // self.step_size)


@dataclass(kw_only=True)
class MultiStep(Schedule):
    """Multiplied by ``gamma`` at each of the ``milestones``."""

    milestones: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [5000, 10000])
    gamma: Annotated[float, Gt(0), Le(1)] = 0.1

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


# ---- curves that come back ------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class CosineRestarts(Schedule):
    """Half cosines down to ``min_lr_ratio``, one after the other (SGDR, Loshchilov and Hutter, arXiv 1608.03983).

    The first takes ``cycle_length`` steps, each next one ``cycle_mult`` times as many, from a peak ``gamma`` times as
    high.
    """

    cycle_length: Count = 1000
    cycle_mult: Count = 1
    gamma: Annotated[float, Gt(0), Le(1)] = 1.0

    def shape(self, step: int, span: int, warmup: int) -> float:
        cycle, length = 0, self.cycle_length
        if self.cycle_mult == 1:
            cycle, step = divmod(step, length)
        while step >= length:
            cycle, step, length = cycle + 1, step - length, length * self.cycle_mult
        peak = max(self.gamma**cycle, self.min_lr_ratio)
        return self.min_lr_ratio + (peak - self.min_lr_ratio) * _half_cosine(step / length)


@dataclass(kw_only=True)
class Cyclic(Schedule):
    """Triangles between ``start_ratio`` of the rate and all of it (Smith, arXiv 1506.01186).

    Each takes ``cycle_length`` steps, up and down again; each next one is ``gamma`` times as high above
    ``start_ratio``: 1 is the paper's triangular policy, 0.5 its triangular2.
    """

    cycle_length: Annotated[int, Ge(2)] = 2000
    start_ratio: Annotated[float, Gt(0), Le(1)] = 0.1
    gamma: Annotated[float, Gt(0), Le(1)] = 1.0

    def shape(self, step: int, span: int, warmup: int) -> float:
        cycle, within = divmod(step, self.cycle_length)
        low = max(self.start_ratio, self.min_lr_ratio)
        height = 1.0 - abs(2.0 * within / self.cycle_length - 1.0)
        return low + (1.0 - low) * self.gamma**cycle * height


# ---- the one that listens -------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Plateau(Schedule):
    """Multiplied by ``lr_factor`` when the monitored metric has not improved for more than ``lr_patience`` validations.

    ``threshold`` is the least relative improvement that counts (torch's ReduceLROnPlateau, same rule). ``interval`` is
    the unit of warm-up only.
    """

    lr_factor: Annotated[float, Gt(0), Lt(1)] = 0.5
    lr_patience: Natural = 3
    threshold: NotNegative = 1e-4

    follows_metric = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._scale = 1.0
        self._best: float | None = None
        self._bad = 0

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self._scale

    def on_metric(self, value: float, mode: str) -> None:
        sign = 1.0 if mode == "max" else -1.0
        if self._best is None or sign * value > sign * self._best * (1.0 + sign * self.threshold):
            self._best, self._bad = value, 0
            return
        self._bad += 1
        if self._bad > self.lr_patience:
            self._scale, self._bad = max(self._scale * self.lr_factor, self.min_lr_ratio), 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self._scale, "best": self._best, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scale, self._best, self._bad = state["scale"], state["best"], state["bad"]
