"""Learning-rate schedules: the factor on the optimizer's own rate as a pure function of the step.

Step 0 is the first optimizer step. Every schedule warms up linearly (the step before the end of warm-up runs at the
full rate, and no step runs at rate zero because of it), and never falls below ``min_lr_ratio`` once warm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from genrec.contracts import GenrecError


@dataclass(kw_only=True)
class Schedule:
    """A schedule without decay, and the base of the others.

    ``warmup_steps`` counts optimizer steps; ``warmup_ratio``, when given, is a share of all steps and takes its place.
    """

    warmup_steps: int = 0
    warmup_ratio: float | None = None
    min_lr_ratio: float = 0.0

    per_epoch = False  # True: follows the monitored metric, once per epoch

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise GenrecError(f"scheduler.warmup_steps={self.warmup_steps}: give a number of steps, 0 or more.")
        if self.warmup_ratio is not None and not 0 <= self.warmup_ratio < 1:
            raise GenrecError(f"scheduler.warmup_ratio={self.warmup_ratio}: give a share of all steps, 0 <= ratio < 1.")
        if not 0 <= self.min_lr_ratio <= 1:
            raise GenrecError(f"scheduler.min_lr_ratio={self.min_lr_ratio}: give a share of the learning rate, 0 to 1.")

    def num_warmup_steps(self, total_steps: int) -> int:
        return self.warmup_steps if self.warmup_ratio is None else round(self.warmup_ratio * total_steps)

    def factor(self, step: int, total_steps: int) -> float:
        """What the rate is multiplied by at ``step`` (from 0) of ``total_steps``."""
        warmup = self.num_warmup_steps(total_steps)
        if step < warmup:
            return (step + 1) / warmup * self.floored(self.shape(0, max(total_steps - warmup, 1), warmup))
        return self.floored(self.shape(step - warmup, max(total_steps - warmup, 1), warmup))

    def shape(self, step: int, span: int, warmup: int) -> float:
        """The decay at ``step`` after warm-up, ``span`` steps from warm-up to the end; 1 at step 0."""
        return 1.0

    def floored(self, value: float) -> float:
        return max(value, self.min_lr_ratio)

    def on_metric(self, value: float, mode: str) -> None:
        """Told the monitored metric after each validation; only ``Plateau`` listens."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@dataclass(kw_only=True)
class Constant(Schedule):
    """The full rate throughout, after warm-up."""


@dataclass(kw_only=True)
class _ToTheEnd(Schedule):
    """Decays that reach ``min_lr_ratio`` exactly at the last step rather than being cut off at it."""

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
        return 0.5 * (1.0 + math.cos(math.pi * min(step / span, 1.0)))


@dataclass(kw_only=True)
class Polynomial(_ToTheEnd):
    """``(1 - progress) ** power`` down to ``min_lr_ratio``."""

    power: float = 2.0

    def shape(self, step: int, span: int, warmup: int) -> float:
        return max(1.0 - step / span, 0.0) ** self.power


@dataclass(kw_only=True)
class InverseSqrt(Schedule):
    """``sqrt(w / (w + t))`` at t steps after the warm-up of w (1 where there is none), as T5 (arXiv 1910.10683)."""

    def shape(self, step: int, span: int, warmup: int) -> float:
        start = max(warmup, 1)
        return math.sqrt(start / (start + step))


@dataclass(kw_only=True)
class Exponential(Schedule):
    """``decay_rate ** (step / decay_steps)``."""

    decay_rate: float = 0.95
    decay_steps: int = 1000

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.decay_rate ** (step / self.decay_steps)


@dataclass(kw_only=True)
class Step(Schedule):
    """Multiplied by ``gamma`` every ``step_size`` steps."""

    step_size: int = 1000
    gamma: float = 0.1

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.gamma ** (step // self.step_size)


@dataclass(kw_only=True)
class MultiStep(Schedule):
    """Multiplied by ``gamma`` at each of the ``milestones``, counted in steps after warm-up."""

    milestones: list[int] = field(default_factory=lambda: [5000, 10000])
    gamma: float = 0.1

    def shape(self, step: int, span: int, warmup: int) -> float:
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


@dataclass(kw_only=True)
class Plateau(Schedule):
    """Multiplied by ``lr_factor`` when the monitored metric has not improved for more than ``lr_patience`` validations.

    ``threshold`` is the least relative improvement that counts (torch's ReduceLROnPlateau, same rule).
    """

    lr_factor: float = 0.5
    lr_patience: int = 3
    threshold: float = 1e-4

    per_epoch = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.lr_factor < 1:
            raise GenrecError(f"lr_factor={self.lr_factor}: give a number between 0 and 1, for example 0.5.")
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
