"""Runs that differ in nothing but their seed, taken together: mean, spread and interval of each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.records import FINISHED, RunRecord, SweepRecord
from genrec.report.trials import SEED, value_in_effect

LEVEL = 0.95


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs of one setting under several seeds.

    ``overrides`` are the swept parameters without the seed. By metric: ``values`` in the order of ``seeds``, their
    ``mean``, the sample standard deviation ``std`` (None for one run), and ``low`` and ``high``, the 95 % interval of
    the mean by Student's t (None for one run). Metrics that some run of the group lacks are left out.
    """

    overrides: dict[str, str]
    seeds: tuple[int | str, ...]
    runs: tuple[RunRecord, ...]
    values: dict[str, tuple[float, ...]]
    mean: dict[str, float]
    std: dict[str, float | None]
    low: dict[str, float | None]
    high: dict[str, float | None]


def seed_groups(record: SweepRecord) -> list[SeedGroup]:
    """The groups of a sweep over seeds, in the order of their first runs; empty where the seed was not swept."""
    if SEED not in record.swept:
        return []
    others = [name for name in record.swept if name != SEED]
    groups: dict[tuple[str | None, ...], list[RunRecord]] = {}
    for run in record.runs:
        if run.state == FINISHED and run.final:
            groups.setdefault(tuple(value_in_effect(run, name) for name in others), []).append(run)
    return [_group(dict(zip(others, setting, strict=True)), runs) for setting, runs in groups.items()]


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of the mean of independent values, by Student's t with ``len(values) - 1`` degrees of freedom; None
    for fewer than two."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return None
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2) * error)
    return float(mean) - reach, float(mean) + reach


def _group(overrides: Mapping[str, str | None], runs: Sequence[RunRecord]) -> SeedGroup:
    shared = [name for name in runs[0].final if all(name in run.final for run in runs)]
    values = {name: tuple(float(run.final[name]) for run in runs) for name in shared}
    intervals = {name: t_interval(given) for name, given in values.items()}
    return SeedGroup(
        overrides={name: value for name, value in overrides.items() if value is not None},
        seeds=tuple(_seed(run) for run in runs),
        runs=tuple(runs),
        values=values,
        mean={name: float(np.mean(given)) for name, given in values.items()},
        std={name: float(np.std(given, ddof=1)) if len(given) > 1 else None for name, given in values.items()},
        low={name: found[0] if found else None for name, found in intervals.items()},
        high={name: found[1] if found else None for name, found in intervals.items()},
    )


def _seed(run: RunRecord) -> int | str:
    text = value_in_effect(run, SEED) or ""
    return int(text) if text.isdecimal() else text
