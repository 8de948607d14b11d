"""Intervals by the bootstrap: how far a mean, or a difference of two, may lie from its value for other test users.

R resamples, n rows (users, or impressions), m columns, c resamples that are drawn together.

A resample draws n of the n test users with replacement and averages their values again; the 2.5 % and 97.5 % points
of R such averages bound the 95 % interval (the percentile method of Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13). Two models that were tested on the same users are compared on the same resamples, so that
users who are easy or hard for both cancel (the paired bootstrap of Koehn, Statistical Significance Tests for Machine
Translation Evaluation, EMNLP 2004). The p-value is twice the smaller share of resampled differences on one side of
zero, with one added to either count (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.4):
it is below 0.05 where the 95 % interval leaves zero out. Several comparisons at once are corrected after Holm (1979).

Where rows of one user depend on each other, whole users are resampled with all of their rows. Weights are trained with
a seed, whose luck no resample of users shows; ``with_seed_noise`` adds it where several seeds were run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CELLS = 4_000_000  # counts that are held at once: 32 MB
_WORTH_GROUPING = 16  # rows per distinct row, from which on drawing how often each distinct row came is faster


@dataclass(frozen=True)
class Interval:
    """A value, the bounds that hold it with ``confidence``, and its standard error.

    ``p_value`` is two-sided, of the hypothesis that the true value is zero; None where nobody asks (a single mean).
    """

    value: float
    low: float
    high: float
    standard_error: float
    confidence: float
    resamples: int
    p_value: float | None = None

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class Statistic(Protocol):
    """A number computed from weighted rows."""

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(c,) values for ``weights`` (c, n): how often each row was drawn; nan where the value is not defined."""
        ...


class FunctionOfSums:
    """A function of weighted column sums, such as a mean: ``combine(sums (c, m), weight (c,)) -> (c,)``."""

    def __init__(self, columns: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.columns = np.asarray(columns, dtype=np.float64).reshape(len(columns), -1)
        self.combine = combine

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.combine(weights @ self.columns, weights.sum(axis=1))


class AreaUnderCurve:
    """The area under the ROC curve of weighted rows, ties counted half: ``scores`` (n,), ``labels`` (n,) of 0 and 1.

    Sorted once; a resample then costs a cumulative sum over the negatives and two looks into it per positive.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        scores, positive = np.asarray(scores), np.asarray(labels) == 1
        negatives = np.flatnonzero(~positive)
        self._positives = np.flatnonzero(positive)
        self._negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        ranked = scores[self._negatives]
        self._below = np.searchsorted(ranked, scores[self._positives], side="left")
        self._not_above = np.searchsorted(ranked, scores[self._positives], side="right")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        areas = np.empty(len(weights))
        below = np.zeros(len(self._negatives) + 1)
        for row, weight in enumerate(weights):
            np.cumsum(weight[self._negatives], out=below[1:])
            won = weight[self._positives]
            pairs = won.sum() * below[-1]
            areas[row] = won @ (below[self._below] + below[self._not_above]) / (2 * pairs) if pairs else np.nan
        return areas


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of ``b - a`` with its interval and p-value; ``a`` and ``b`` (n,) belong to the same users in order."""
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    draws = resampled_means(difference[:, None], resamples=resamples, seed=seed)[:, 0]
    return interval(float(difference.mean()), draws, confidence=confidence, against_zero=True)


def mean_interval(
    values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of ``values`` (n,) with its interval."""
    draws = resampled_means(np.asarray(values)[:, None], resamples=resamples, seed=seed)[:, 0]
    return interval(float(np.mean(values)), draws, confidence=confidence)


def interval(
    value: float, draws: np.ndarray, *, confidence: float = CONFIDENCE, against_zero: bool = False
) -> Interval:
    """The percentile interval of resampled values ``draws`` (R,); those that are not defined do not count."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Interval(value, np.nan, np.nan, np.nan, confidence, 0, 1.0 if against_zero else None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    error = float(draws.std(ddof=1)) if len(draws) > 1 else 0.0
    p_value = _two_sided(draws) if against_zero else None
    return Interval(value, float(low), float(high), error, confidence, len(draws), p_value)


def resampled_means(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(R, m) column means of R resamples of the rows of ``values`` (n, m), all columns on the same resamples.

    Rows that are alike are drawn together, which changes no probability: how often each kind of row is drawn is
    multinomial. Metrics of one held-out item depend on its rank only, so there are few kinds.
    """
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    kinds, sizes = np.unique(values, axis=0, return_counts=True)
    if len(kinds) * _WORTH_GROUPING > len(values):
        drawn = (counts @ values for counts in _row_counts(len(values), resamples, rng))
        return np.concatenate(list(drawn)) / len(values)
    shares = sizes / len(values)
    chunks = _chunks(resamples, len(kinds))
    drawn = (rng.multinomial(len(values), shares, size=chunk).astype(np.float64) @ kinds for chunk in chunks)
    return np.concatenate(list(drawn)) / len(values)


def resampled_statistics(
    statistics: Sequence[Statistic], num_rows: int, *, groups: np.ndarray | None = None, resamples: int, seed: int = 0
) -> np.ndarray:
    """(R, number of statistics) values on R resamples of rows, the same for all statistics.

    With ``groups`` (n,) whole groups are drawn, each with all of its rows.
    """
    rng = np.random.default_rng(seed)
    members = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    units = num_rows if members is None else int(members.max()) + 1
    found = []
    for counts in _row_counts(units, resamples, rng, width=num_rows):
        weights = counts if members is None else counts[:, members]
        found.append(np.stack([statistic(weights) for statistic in statistics], axis=1))
    return np.concatenate(found)


def with_seed_noise(
    draws: np.ndarray, reference_means: Sequence[float], means: Sequence[float], *, seed: int = 0
) -> np.ndarray | None:
    """Resampled differences ``draws`` (R,) plus the luck of the seeds: Student's t, scaled by the standard error of the
    difference of the two means over seeds, with the degrees of freedom of Welch (1947).

    ``reference_means`` and ``means`` hold a value per seed; a single one tells nothing of the noise and counts as
    exact. None where both are single.
    """
    parts = [(np.var(side, ddof=1) / len(side), len(side) - 1) for side in (reference_means, means) if len(side) > 1]
    if not parts:
        return None
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return draws
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    noise = np.random.default_rng([seed, 1]).standard_t(freedom, size=len(draws))
    return draws + np.sqrt(variance) * noise


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that allow for how many there are (Holm, A Simple Sequentially Rejective Multiple Test Procedure,,
    1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return adjusted.tolist()


def _two_sided(draws: np.ndarray) -> float:
    one_side = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return float(min(1.0, 2 * (one_side + 1) / (len(draws) + 1)))


def _row_counts(
    num_rows: int, resamples: int, rng: np.random.Generator, width: int | None = None
) -> Iterator[np.ndarray]:
    """Chunks (c, n) of how often each row was drawn; ``width`` is the number of columns that they grow to."""
    for chunk in _chunks(resamples, max(num_rows, width or 0)):
        counts = np.empty((chunk, num_rows))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, num_rows, num_rows), minlength=num_rows)
        yield counts


def _chunks(total: int, width: int) -> Iterator[int]:
    size = max(1, _CELLS // width)
    for begin in range(0, total, size):
        yield min(size, total - begin)
