"""What is better of a metric: less of it, more of it, or what lies nearest to 1; the same for trainers, sweeps and
reports."""

from __future__ import annotations

import math
import re

_SMALLER_IS_BETTER = re.compile(
    r"^(seconds|resources|peak)/"  # what a run costs
    r"|^train/loss/|(^|/)loss/(?!(g?auc|r2)$)"  # of a task, which may have any name; a task may be called loss
    r"|(loss|mse|sse|mae|error|entropy|brier|(^|[/_])ece)(_per_sample|_step|_level_\d+)?(@\d+)?$"
    r"|(^|/)(num_colliding_items|largest_collision_group|gini@\d+)$"
    r"|^((train|val|test)/)?(negative_log_likelihood|kl|reconstruction|quantization|regularisation|l2|ranking|contrast"
    r"|clean|adversarial)$"  # of which losses are made
)
_RATIO = re.compile(r"(^|/|^(train|val)_)calibration$")


def metric_mode(name: str) -> str:
    """ "min" for losses, errors and what a run costs, else "max"; a ratio has neither (``is_ratio``)."""
    return "min" if _SMALLER_IS_BETTER.search(name) else "max"


def is_ratio(name: str) -> bool:
    """Whether a metric is best at 1: above it too much is promised, below it too little."""
    return _RATIO.search(name) is not None


def cost_of(name: str, value: float, mode: str | None = None) -> float:
    """A number by which values of a metric are ordered, the best first; ``mode`` is what a run was told is better."""
    if mode is None and is_ratio(name):
        return abs(math.log(value)) if value > 0 else math.inf
    return value if (mode or metric_mode(name)) == "min" else -value


def ratio_words(name: str) -> str:
    """Why a ratio is nothing to choose by."""
    return f"{name} is best at 1, and neither the largest nor the smallest is better"


def instead_of_ratio(name: str) -> str:
    """The error that tells of the same as a ratio."""
    return _RATIO.sub(r"\1ece", name)
