"""Two runs and more side by side: differences of their test metrics with intervals, overall and per segment.

``genrec.report.bootstrap`` says how the intervals are made, ``genrec.report.sides`` what may be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec.contracts import GenrecError
from genrec.directions import metric_mode
from genrec.report.bootstrap import CONFIDENCE, RESAMPLES, Interval, holm, interval, with_seed_noise
from genrec.report.results import Estimates, UserResults
from genrec.report.row_results import RowResults
from genrec.report.sides import Side, changed_settings, costs, kind_of, read_sides
from genrec.tables import USUAL_K

BETTER, WORSE, UNCLEAR, EQUAL = "better", "worse", "unclear", "equal"
NUM_SEGMENTS = 4
NUM_GAINS = 10
FEWEST_IN_SEGMENT = 2
ENOUGH_SEEDS = 5
ROW_RESAMPLES = (500, 2_000)  # at least and at most, where nobody says
_ROW_DRAWS = 200_000_000  # rows drawn in all: 2,000 resamples of 100,000
_TOLERANCE = 1e-9  # metrics are float32, and means over seeds are rounded


@dataclass(frozen=True)
class Options:
    """How runs are compared; ``resamples`` None is 10,000 for users and fewer for rows, which are many."""

    metrics: tuple[str, ...] = ()
    resamples: int | None = None
    confidence: float = CONFIDENCE
    correction: str = "none"
    seed: int = 0


@dataclass(frozen=True)
class Difference:
    """A side minus the reference in one metric.

    ``over_users`` is the interval over test users, of the trained weights as they are; ``over_seeds`` allows for the
    luck of the seeds as well, None where no side has several. ``wins``, ``losses`` and ``ties`` count users (rows,
    groups), ``both_zero`` those of the ties where neither found anything; None for metrics that exist only of all
    together.
    ``p_value`` is corrected where that was asked for.
    """

    metric: str
    side: int
    reference_value: float
    value: float
    over_users: Interval
    over_seeds: Interval | None
    p_value: float
    verdict: str
    wins: int | None = None
    losses: int | None = None
    ties: int | None = None
    both_zero: int | None = None

    @property
    def interval(self) -> Interval:
        """The one that the verdict rests on."""
        return self.over_seeds or self.over_users

    @property
    def relative(self) -> float | None:
        """The difference as a share of the reference; None where that is zero."""
        return self.over_users.value / abs(self.reference_value) if self.reference_value else None


@dataclass(frozen=True)
class Segment:
    """The difference of one side in one metric among the users of a quarter, such as ``history length`` 4 to 6."""

    trait: str
    name: str
    size: int
    metric: str
    side: int
    reference_value: float
    value: float
    over_users: Interval
    verdict: str


@dataclass(frozen=True)
class Gain:
    """A user whose lists differ most between a side and the reference; metrics by name, ``(reference, side)``."""

    user: Any
    side: int
    known: Mapping[str, float]
    values: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """Everything that ``compare`` found; the first side is the reference.

    ``intervals`` are those of single means by metric, one per side; ``seed_values`` the means of each seed.
    ``settings`` are the config keys that differ, with the value of each side; ``costs`` what each side took, None where
    that is not known. ``resampled`` says what was drawn, in words.
    """

    sides: tuple[Side, ...]
    unit: str
    size: int
    metrics: tuple[str, ...]
    primary: str
    resamples: int
    resampled: str
    options: Options
    intervals: Mapping[str, tuple[Interval, ...]]
    seed_values: Mapping[str, tuple[tuple[float, ...], ...]]
    differences: tuple[Difference, ...]
    segments: tuple[Segment, ...]
    gains: tuple[Gain, ...]
    losses: tuple[Gain, ...]
    settings: Mapping[str, list[Any]]
    costs: Mapping[str, list[float | None]]
    notes: tuple[str, ...] = field(default=())

    @property
    def reference(self) -> Side:
        return self.sides[0]

    @property
    def has_seeds(self) -> bool:
        return any(difference.over_seeds for difference in self.differences)

    def of(self, metric: str, side: int = 1) -> Difference:
        """The difference of ``side`` in ``metric``."""
        return next(found for found in self.differences if found.metric == metric and found.side == side)


def compare(given: Sequence[str], options: Options | None = None, *, runs_dir: Path = Path("outputs")) -> Comparison:
    """Compares what ``given`` names with the first of it; GenrecError where the comparison would not be fair.

    Folders that are not found from here are looked for in ``runs_dir``.
    """
    options = options or Options()
    if len(given) < 2:
        raise GenrecError("compare needs two runs or more: python -m genrec.report compare outputs/a outputs/b")
    sides = read_sides(given, runs_dir)
    results = (UserResults if kind_of(sides[0]) == "users" else RowResults)(sides, options.metrics)
    return _Judge(sides, results, options).comparison()


def smaller_is_better(metric: str) -> bool:
    return metric_mode(metric) == "min"


class _Judge:
    """Turns results into a ``Comparison``."""

    def __init__(self, sides: Sequence[Side], results: UserResults | RowResults, options: Options) -> None:
        self.sides, self.results, self.options = sides, results, options
        usual = RESAMPLES if results.unit == "users" else int(np.clip(_ROW_DRAWS // results.size, *ROW_RESAMPLES))
        self.resamples = options.resamples or usual

    def comparison(self) -> Comparison:
        metrics, results = tuple(self.results.metrics), self.results
        gains, losses = self._gains()
        return Comparison(
            sides=tuple(self.sides),
            unit=results.unit,
            size=results.size,
            metrics=metrics,
            primary=_primary(metrics, self.sides[0].run.monitor),
            resamples=self.resamples,
            resampled=_drawn(results),
            options=self.options,
            intervals={name: tuple(self._interval(self.whole, side, place) for side in range(len(self.sides)))
                       for place, name in enumerate(metrics)},
            seed_values={name: tuple(tuple(means[:, place].tolist()) for means in results.seed_means)
                         for place, name in enumerate(metrics)},
            differences=self._differences(),
            segments=tuple(self._segments()),
            gains=gains,
            losses=losses,
            settings=changed_settings(self.sides),
            costs=costs(self.sides),
            notes=tuple(_notes(self.sides)),
        )  # fmt: skip

    @cached_property
    def whole(self) -> Estimates:
        return self.results.estimate(resamples=self.resamples, seed=self.options.seed)

    def _interval(self, found: Estimates, side: int, metric: int) -> Interval:
        draws = found.draws[:, side, metric]
        return interval(float(found.values[side, metric]), draws, confidence=self.options.confidence)

    def _difference(self, found: Estimates, side: int, metric: int) -> tuple[float, np.ndarray]:
        """The difference and its resampled values; rounding errors of equal metrics are taken off."""
        draws = found.draws[:, side, metric] - found.draws[:, 0, metric]
        draws[np.abs(draws) < _TOLERANCE] = 0.0
        value = float(found.values[side, metric] - found.values[0, metric])
        return (0.0 if abs(value) < _TOLERANCE else value), draws

    def _against_zero(self, value: float, draws: np.ndarray) -> Interval:
        return interval(value, draws, confidence=self.options.confidence, against_zero=True)

    def _differences(self) -> tuple[Difference, ...]:
        pairs = [(side, place) for side in range(1, len(self.sides)) for place in range(len(self.results.metrics))]
        intervals = [self._intervals(side, place) for side, place in pairs]
        p_values = [(over_seeds or over_users).p_value or 0.0 for over_users, over_seeds in intervals]
        corrected = holm(p_values) if self.options.correction == "holm" else p_values
        return tuple(
            self._one(side, place, *found, p_value)
            for (side, place), found, p_value in zip(pairs, intervals, corrected, strict=True)
        )

    def _intervals(self, side: int, place: int) -> tuple[Interval, Interval | None]:
        value, draws = self._difference(self.whole, side, place)
        over_users = self._against_zero(value, draws)
        means = [self.results.seed_means[one][:, place].tolist() for one in (0, side)]
        noisy = with_seed_noise(draws, *means, seed=self.options.seed)
        return over_users, None if noisy is None else self._against_zero(value, noisy)

    def _one(
        self, side: int, place: int, over_users: Interval, over_seeds: Interval | None, p_value: float
    ) -> Difference:
        name = self.results.metrics[place]
        judged = over_seeds or over_users
        clear = judged.excludes_zero
        if self.options.correction == "holm":
            clear = clear and p_value < 1 - self.options.confidence
        return Difference(
            metric=name, side=side, over_users=over_users, over_seeds=over_seeds, p_value=p_value,
            reference_value=float(self.whole.values[0, place]), value=float(self.whole.values[side, place]),
            verdict=_verdict(name, judged, clear), **self._counts(name, side),
        )  # fmt: skip

    def _counts(self, metric: str, side: int) -> dict[str, int]:
        values = self.results.per_unit(metric)
        if values is None:
            return {}
        gained = (values[side] - values[0]) * (-1 if smaller_is_better(metric) else 1)
        ties = np.abs(gained) < _TOLERANCE
        nothing = ties & (np.abs(values[0]) < _TOLERANCE)
        return {
            "wins": int(np.count_nonzero((gained > 0) & ~ties)),
            "losses": int(np.count_nonzero((gained < 0) & ~ties)),
            "ties": int(np.count_nonzero(ties)),
            "both_zero": int(np.count_nonzero(nothing)),
        }

    def _segments(self) -> list[Segment]:
        found = []
        for trait, values in self.results.traits.items():
            for name, chosen in quarters(values):
                if np.count_nonzero(chosen) < FEWEST_IN_SEGMENT:
                    continue
                estimates = self.results.estimate(resamples=self.resamples, seed=self.options.seed, chosen=chosen)
                found += self._segment(trait, name, int(np.count_nonzero(chosen)), estimates)
        return found

    def _segment(self, trait: str, name: str, size: int, estimates: Estimates) -> list[Segment]:
        found = []
        for place, metric in enumerate(self.results.metrics):
            if not np.isfinite(estimates.values[:, place]).all():  # no positive among them
                continue
            for side in range(1, len(self.sides)):
                judged = self._against_zero(*self._difference(estimates, side, place))
                reference, value = estimates.values[[0, side], place].tolist()
                verdict = _verdict(metric, judged, judged.excludes_zero)
                found.append(Segment(trait, name, size, metric, side, reference, value, judged, verdict))
        return found

    def _gains(self) -> tuple[tuple[Gain, ...], tuple[Gain, ...]]:
        """Users with the largest gains and losses in the mean of all chosen metrics."""
        if not isinstance(self.results, UserResults):
            return (), ()
        gains: list[Gain] = []
        losses: list[Gain] = []
        for side in range(1, len(self.sides)):
            change = (self.results.values[side] - self.results.values[0]).mean(axis=1)
            order = np.argsort(-change, kind="stable")
            gains += [self._gain(user, side) for user in order[:NUM_GAINS] if change[user] > _TOLERANCE]
            losses += [self._gain(user, side) for user in order[::-1][:NUM_GAINS] if change[user] < -_TOLERANCE]
        return tuple(gains), tuple(losses)

    def _gain(self, user: int, side: int) -> Gain:
        assert isinstance(self.results, UserResults)
        values = self.results.values
        pairs = {name: (float(values[0, user, place]), float(values[side, user, place]))
                 for place, name in enumerate(self.results.metrics)}  # fmt: skip
        known = {name: float(column[user]) for name, column in self.results.known.items()}
        return Gain(self.results.ids[user], side, known, pairs)


def quarters(values: np.ndarray, parts: int = NUM_SEGMENTS) -> list[tuple[str, np.ndarray]]:
    """Parts of about equal size by ``values`` (n,), lowest first: a name such as ``4 to 6`` and its members (n,) bool.

    Equal values stay together, so there are fewer parts where many are alike. Every row is in exactly one part.
    """
    edges = np.unique(np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf"))
    place = np.searchsorted(edges, values, side="left")
    found = []
    for part in np.unique(place):
        chosen = place == part
        low, high = values[chosen].min(), values[chosen].max()
        found.append((_span(low, high), chosen))
    return found


def _span(low: float, high: float) -> str:
    def told(value: float) -> str:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"

    return told(low) if told(low) == told(high) else f"{told(low)} to {told(high)}"


def _verdict(metric: str, judged: Interval, clear: bool) -> str:
    if judged.value == 0 and judged.low == judged.high == 0:
        return EQUAL
    if not clear:
        return UNCLEAR
    return WORSE if (judged.low > 0) == smaller_is_better(metric) else BETTER


def _drawn(results: UserResults | RowResults) -> str:
    grouped = isinstance(results, RowResults) and results.groups is not None
    return "users, each with all of their rows," if grouped else results.unit


def _primary(metrics: Sequence[str], monitor: str | None) -> str:
    """The metric that is told of first: what chose the weights, else recall@10, else the first."""
    monitored = (monitor or "").partition("/")[2]
    return next((name for name in (monitored, f"recall@{USUAL_K}") if name in metrics), metrics[0])


def _notes(sides: Sequence[Side]) -> list[str]:
    """What one should know before believing the numbers."""
    notes = [
        f"{side.left_out} of {side.left_out + len(side.runs)} runs of {side.given} have not finished and are left out."
        for side in sides
        if side.left_out
    ]
    single = [side.name for side in sides if len(side.runs) == 1 and side.is_trained]
    if single:
        notes.append(
            f"{' and '.join(single)}: one seed each. The intervals are of these weights on other users, not of other "
            "seeds; run with seeds=5 to know."
            if len(single) > 1
            else f"{single[0]}: one seed. Its interval is of these weights on other users, not of other seeds; "
            "run with seeds=5 to know."
        )
    few = [
        f"{len(side.runs)} of {side.name}" for side in sides if side.is_trained and 1 < len(side.runs) < ENOUGH_SEEDS
    ]
    if few:
        notes.append(f"Few seeds ({', '.join(few)}) make intervals wide, for their spread is barely known.")
    fingerprints = {side.run.environment.get("data_fingerprint") for side in sides}
    if len(fingerprints) > 1:
        notes.append("The data are not the same (their features or training rows), the test rows are.")
    commits = {(side.run.environment.get("git") or {}).get("commit") for side in sides} - {None}
    if len(commits) > 1:
        notes.append(f"The code was not the same: commits {', '.join(sorted(str(commit)[:8] for commit in commits))}.")
    return notes
