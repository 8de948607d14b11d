"""How much of the differences between the runs of a sweep each swept parameter accounts for.

A random forest learns the objective from the parameters of the finished runs. A parameter's effect is what changes in
the forest's answer when a run is given that parameter's value of another run and keeps its other values:
``E[(f(x) - f(x'))^2] / 2``, the variance that is lost by not knowing the parameter. This is Jansen's estimator of the
total Sobol' index (Jansen 1999, Computer Physics Communications 117; Saltelli et al. 2010), taken over all pairs of
runs, so that it is exact for the forest and needs no sampling. A functional ANOVA of a forest (Hutter, Hoos and
Leyton-Brown, ICML 2014) splits the same variance; the total index also counts what a parameter does only together with
others. Shares are effects that add up to one.

Failed, killed and pruned runs are left out: the value of a pruned run belongs to an earlier epoch, and it would be the
epoch, not the parameter, that explains the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.records import FINISHED, RunRecord
from genrec.report.trials import Parameter, objective_value, read_parameters

FEWEST_RUNS = 4
_NUM_TREES = 128
_NUM_RESAMPLES, _TREES_PER_RESAMPLE = 12, 16
_MOST_VALUES = 64  # of one parameter that are put into the other runs
_SEED = 0


@dataclass(frozen=True)
class Importance:
    """The share of a parameter in the explained differences, in [0, 1]; ``low`` and ``high`` hold the middle 80 % of
    the shares of forests grown on resampled runs."""

    name: str
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Importances:
    """Parameters, the most important first. ``reason`` says why there are none. ``explained`` is the R^2 of the forest
    on the runs that each tree had not seen: at 0 and below, the shares divide up noise."""

    shares: tuple[Importance, ...] = ()
    reason: str = ""
    explained: float | None = None
    num_runs: int = 0


def parameter_importance(
    runs: Sequence[RunRecord], names: Sequence[str], metric: str, direction: str = "max"
) -> Importances:
    """The importance of the overrides ``names`` for ``metric`` over the finished ``runs``; equal in every call.

    Args:
        runs: Those of a sweep, in any state.
        names: The swept overrides; numbers, categories and keys that only some runs have.
        metric: The objective, such as ``val/recall@10``.
        direction: "min" or "max"; runs that are worse by far than the others (three quartile ranges) count as if they
            were just that bad, or one that diverged would be all there is to explain.
    """
    finished = [run for run in runs if run.state == FINISHED]
    reached = [(run, value) for run in finished if (value := objective_value(run, metric, direction)) is not None]
    reason = _too_little([value for _, value in reached], names)
    if reason:
        return Importances(reason=reason, num_runs=len(reached))
    parameters = read_parameters([run for run, _ in reached], names)
    x, columns = _design(parameters)
    y = _without_outliers(np.array([value for _, value in reached]), direction)
    shares, explained = _shares(x, y, columns, trees=_NUM_TREES, seed=_SEED)
    low, high = _spread(x, y, columns)
    listed = [
        Importance(parameter.name, float(share), float(min(share, bottom)), float(max(share, top)))
        for parameter, share, bottom, top in zip(parameters, shares, low, high, strict=True)
    ]
    listed.sort(key=lambda importance: -importance.share)
    return Importances(tuple(listed), explained=explained, num_runs=len(reached))


def _too_little(values: Sequence[float], names: Sequence[str]) -> str:
    if not names:
        return "Nothing differs between the runs."
    if len(values) < FEWEST_RUNS:
        return f"{len(values)} finished runs are too few to tell what mattered; it takes {FEWEST_RUNS}."
    if min(values) == max(values):
        return "All finished runs reached the same value, so no parameter made a difference."
    return ""


def _without_outliers(y: np.ndarray, direction: str) -> np.ndarray:
    sign = -1.0 if direction == "min" else 1.0
    lower, upper = np.quantile(sign * y, [0.25, 0.75])
    fence = lower - 3 * (upper - lower)
    return sign * np.maximum(sign * y, fence) if upper > lower else y


def _design(parameters: Sequence[Parameter]) -> tuple[np.ndarray, list[slice]]:
    """A row per run, and which columns belong to each parameter: one for numbers, one per category for words."""
    blocks = [_numeric(parameter) if parameter.numbers else _one_hot(parameter) for parameter in parameters]
    ends = np.cumsum([block.shape[1] for block in blocks])
    columns = [slice(int(end) - block.shape[1], int(end)) for end, block in zip(ends, blocks, strict=True)]
    return np.hstack(blocks).astype(np.float32), columns


def _numeric(parameter: Parameter) -> np.ndarray:
    numbers = np.array([np.nan if number is None else number for number in parameter.numbers or ()], dtype=np.float64)
    numbers = np.log(numbers) if parameter.log else numbers
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    scaled = (numbers - low) / (high - low if high > low else 1.0)
    return np.where(np.isnan(scaled), -1.0, scaled)[:, None]  # a run without the key stands apart, one split away


def _one_hot(parameter: Parameter) -> np.ndarray:
    return np.array([[value == category for category in parameter.categories] for value in parameter.values])


def _shares(
    x: np.ndarray, y: np.ndarray, columns: Sequence[slice], *, trees: int, seed: int
) -> tuple[np.ndarray, float | None]:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=trees, random_state=seed, n_jobs=1).fit(x, y)
    grown = [tree.tree_ for tree in forest.estimators_]
    answers = _predict(grown, x)
    effects = np.array([_total_effect(grown, x, answers, block) for block in columns])
    total = effects.sum()
    shares = effects / total if total > 0 else np.full(len(columns), 1 / len(columns))
    return shares, _explained(grown, forest.estimators_samples_, x, y)


def _predict(grown: Sequence[Any], x: np.ndarray) -> np.ndarray:
    """The mean answer of the trees."""
    return sum((tree.predict(x).ravel() for tree in grown), np.zeros(len(x))) / len(grown)


def _explained(grown: Sequence[Any], seen: Sequence[np.ndarray], x: np.ndarray, y: np.ndarray) -> float | None:
    """R^2 over the runs that some trees were grown without, each answered by those trees."""
    total, count = np.zeros(len(y)), np.zeros(len(y))
    for tree, samples in zip(grown, seen, strict=True):
        unseen = np.setdiff1d(np.arange(len(y)), samples)
        if len(unseen):
            total[unseen] += tree.predict(x[unseen]).ravel()
            count[unseen] += 1
    known = count > 0
    spread = np.sum((y[known] - y[known].mean()) ** 2) if known.any() else 0.0
    if spread == 0:
        return None
    return float(1 - np.sum((y[known] - total[known] / count[known]) ** 2) / spread)


def _total_effect(grown: Sequence[Any], x: np.ndarray, answers: np.ndarray, block: slice) -> float:
    """Half the mean squared change of the answer when a run takes the block of another."""
    values, counts = np.unique(x[:, block], axis=0, return_counts=True)
    if len(values) > _MOST_VALUES:
        kept = np.linspace(0, len(values) - 1, _MOST_VALUES).round().astype(int)
        values, counts = values[kept], counts[kept]
    mixed = np.repeat(x, len(values), axis=0)
    mixed[:, block] = np.tile(values, (len(x), 1))
    changes = _predict(grown, mixed).reshape(len(x), len(values)) - answers[:, None]
    return float((changes**2 @ counts).mean() / counts.sum() / 2)


def _spread(x: np.ndarray, y: np.ndarray, columns: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
    """The 10 and 90 % quantiles of the shares over forests of resampled runs."""
    rng = np.random.default_rng(_SEED)
    found = []
    for seed in range(_NUM_RESAMPLES):
        rows = rng.integers(len(y), size=len(y))
        if np.ptp(y[rows]) > 0:
            found.append(_shares(x[rows], y[rows], columns, trees=_TREES_PER_RESAMPLE, seed=seed)[0])
    low, high = np.quantile(found, [0.1, 0.9], axis=0)
    return low, high
