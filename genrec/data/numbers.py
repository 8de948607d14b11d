"""Dense fields: what is known of a number's training values, and how it is transformed by that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.contracts import GenrecError
from genrec.data.columns import Transform
from genrec.data.hashing import draws

_LARGEST = float(np.finfo(np.float32).max)
SAMPLE = 1_000_000  # values that quantiles are taken from, at most


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of numbers seen chunk by chunk (Chan et al., 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        """Takes float64 values (M,) into account, NaN left out."""
        values = values[~np.isnan(values)]
        if not len(values):
            return
        with np.errstate(over="ignore"):  # numbers that large are refused in the end
            mean = float(values.mean())
            gap, total = mean - self.mean, self.count + len(values)
            self.squares += float(np.square(values - mean).sum()) + gap * gap * self.count * len(values) / total
        self.mean += gap * len(values) / total
        self.count = total
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> float:
        return (self.squares / self.count) ** 0.5 if self.count else 0.0

    @property
    def constant(self) -> bool:
        return not self.low < self.high


class Sample:
    """At most ``size`` values of a column: those whose rows draw the smallest numbers, whatever the chunks are."""

    def __init__(self, size: int = SAMPLE, seed: int = 42) -> None:
        self.size = size
        self.seed = seed
        self.values = np.zeros(0)
        self._draws = np.zeros(0, dtype=np.uint64)

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        """Offers the values (M,) of the given row numbers, NaN left out."""
        there = ~np.isnan(values)
        self.values = np.concatenate([self.values, values[there]])
        self._draws = np.concatenate([self._draws, draws(self.seed, rows[there])])
        if len(self.values) > self.size:
            kept = np.sort(np.argpartition(self._draws, self.size)[: self.size])
            self.values, self._draws = self.values[kept], self._draws[kept]

    def quantiles(self, count: int) -> np.ndarray:
        """``count`` quantiles from the smallest to the largest value; empty where there is none."""
        return np.quantile(self.values, np.linspace(0, 1, count)) if len(self.values) else np.zeros(0)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A fitted transform: of ``transform``'s number, minus ``shift``, over ``scale``; ``fill`` where it is missing.

    ``quantiles`` are those of the training values, of transform "quantile". ``constant``: training saw one value.
    """

    transform: Transform
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    quantiles: tuple[float, ...] = ()
    constant: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """float64 numbers (M,), NaN where missing, as float32 without any."""
        if self.transform == "quantile":
            found = ranks(values, np.array(self.quantiles))
        else:
            found = (logarithm(values) if self.transform == "log" else values) - self.shift
            found = found / self.scale
        return np.where(np.isnan(values), self.fill, found).astype(np.float32)

    def state(self) -> dict[str, Any]:
        return {**asdict(self), "quantiles": list(self.quantiles)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Scaling:
        if not all(isinstance(value, int | float) for value in state["quantiles"]):
            raise ValueError("quantiles are numbers")
        quantiles = tuple(map(float, state["quantiles"]))
        return cls(**{**state, "quantiles": quantiles})


def logarithm(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.sign(values) * np.log1p(np.abs(values))


def ranks(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Ranks (M,) in 0..1 among quantiles at equal distances; values that are several quantiles have their middle."""
    if not len(quantiles):
        return np.zeros(len(values))
    places = np.linspace(0, 1, len(quantiles))
    below = np.interp(values, quantiles, places)
    above = -np.interp(-values, -quantiles[::-1], -places[::-1])
    return (below + above) / 2


class ScalingFit:
    """Fits the transform of a dense field to training values, chunk by chunk."""

    def __init__(self, transform: Transform, num_quantiles: int) -> None:
        self.transform = transform
        self.num_quantiles = num_quantiles
        self.moments = Moments()
        self.sample = Sample() if transform == "quantile" else None

    def add(self, values: np.ndarray, rows: np.ndarray) -> None:
        self.moments.add(logarithm(values) if self.transform == "log" else values)
        if self.sample is not None:
            self.sample.add(values, rows)

    def finish(self, place: str) -> Scaling:
        """The transform; of a field without any value it gives 0. ``place`` is what the YAML calls the field."""
        seen = self.moments
        if self.sample is None and seen.count and not max(seen.std, abs(seen.low), abs(seen.high)) < _LARGEST:
            raise GenrecError(
                f"{place}: values from {seen.low:.3g} to {seen.high:.3g} are beyond what 32-bit numbers hold. Clean "
                "the column, leave it out (data.drop), or use transform: log or quantile."
            )
        known = {"transform": self.transform, "constant": seen.constant}
        if self.sample is not None:
            quantiles = self.sample.quantiles(self.num_quantiles)
            fill = float(ranks(self.sample.values, quantiles).mean()) if len(quantiles) else 0.0
            return Scaling(**known, quantiles=tuple(quantiles.tolist()), fill=fill)
        if self.transform == "none" or not seen.count:
            return Scaling(**known, fill=seen.mean)
        if self.transform == "minmax":
            scale = 1.0 if seen.constant else seen.high - seen.low
            return Scaling(**known, shift=seen.low, scale=scale, fill=(seen.mean - seen.low) / scale)
        return Scaling(**known, shift=seen.mean, scale=1.0 if seen.constant else seen.std or 1.0)
