"""Whether a figure that was measured again is the one that is committed, up to the noise between seeds.

The rule: two means are the same where

    |new - committed| <= t(.975, df) * s * sqrt(1 / n + 1 / m) + .0001

with ``s`` the sample standard deviation over the n committed seeds and df = n - 1: the 95 % bound of the difference
between means of n and m seeds. The last term is what the rounding of two figures to four digits can do. Where one seed
only is committed, ``s`` and df are those of the model with the largest spread beside it, on the same data under the
same protocol; where there is none the verdict is "unknown". What has no seeds, a baseline, has no noise but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.results import Group

SAME, MOVED, UNKNOWN = "same", "moved", "unknown"
ROUNDING = 1e-4
CONFIDENCE = 0.975  # of each of the two sides


@dataclass(frozen=True)
class Noise:
    """A standard deviation between seeds, its degrees of freedom, and the model it was taken from."""

    spread: float
    freedom: int
    model: str

    def bound(self, committed: int, new: int) -> float:
        """The largest difference between means of so many seeds that is noise."""
        from scipy.special import stdtrit

        quantile = float(stdtrit(self.freedom, CONFIDENCE)) if self.freedom else 0.0
        return quantile * self.spread * math.sqrt(1 / committed + 1 / new) + ROUNDING


@dataclass(frozen=True)
class Verdict:
    """A figure beside its committed one. ``bound`` is None where the noise is unknown; ``alike`` counts the seeds that
    give what they gave, to the last digit, among ``shared`` ones."""

    metric: str
    committed: float
    new: float
    bound: float | None
    verdict: str
    alike: int
    shared: int

    @property
    def difference(self) -> float:
        return self.new - self.committed


def noise_of(group: Group, beside: Sequence[Group], metric: str) -> Noise | None:
    """The noise of a committed figure; ``beside`` are the groups of the same data and protocol."""
    if not group.seeds:
        return Noise(0.0, 0, group.key["model"])
    candidates = [group] if group.spread(metric) is not None else beside
    known = [
        Noise(spread, len(each.values(metric)) - 1, each.key["model"])
        for each in candidates
        if (spread := each.spread(metric)) is not None
    ]
    return max(known, key=lambda noise: noise.spread, default=None)


def judge(committed: Group, new: Group, beside: Sequence[Group], metric: str) -> Verdict | None:
    """The verdict on one figure; None where either side has no such metric."""
    old_mean, new_mean = committed.mean(metric), new.mean(metric)
    if old_mean is None or new_mean is None:
        return None
    noise = noise_of(committed, beside, metric)
    bound = noise.bound(len(committed.values(metric)), len(new.values(metric))) if noise else None
    moved = bound is not None and abs(new_mean - old_mean) > bound + 1e-9
    verdict = UNKNOWN if bound is None else MOVED if moved else SAME
    return Verdict(metric, old_mean, new_mean, bound, verdict, *_alike(committed, new, metric))


def _alike(committed: Group, new: Group, metric: str) -> tuple[int, int]:
    """How many seeds of both give the same digits, and how many both have."""
    old = {str(row["seed"]): float(row[metric]) for row in committed.rows if row.get(metric)}
    pairs = [
        (old[seed], float(row[metric])) for row in new.rows if (seed := str(row["seed"])) in old and row.get(metric)
    ]
    return sum(math.isclose(one, other, abs_tol=1e-9) for one, other in pairs), len(pairs)
