"""What a sweep varied and what it reached, as numbers and categories that charts and statistics can take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from genrec.directions import cost_of
from genrec.records import FAILED, FINISHED, RunRecord, SweepRecord

SEED = "seed"
_FEW, _SHORT = 8, 7  # values, and letters of a number, that can be named one by one
_LOG_RATIO = 8  # of the largest to the smallest value; below it a logarithmic axis shows nothing more


@dataclass(frozen=True)
class Parameter:
    """A swept override and its value in each run, as text; None where a run has no such key.

    ``numbers`` are given where every value is one; ``log`` says that the search was told to draw them on a log scale
    (``scale``), or else that they spread evenly over orders of magnitude. The seed is a category: a larger seed is not
    more of anything.
    """

    name: str
    values: tuple[str | None, ...]
    scale: str | None = None

    @cached_property
    def numbers(self) -> tuple[float | None, ...] | None:
        if self.name == SEED:
            return None
        found = [None if value is None else _number(value) for value in self.values]
        known = [number for number in found if number is not None]
        numeric = bool(known) and all(
            (value is None) == (number is None) for value, number in zip(self.values, found, strict=True)
        )
        return tuple(found) if numeric else None

    @cached_property
    def log(self) -> bool:
        known = np.unique([number for number in self.numbers or () if number is not None])
        if self.scale is not None and len(known) and known[0] > 0:
            return self.scale == "log"
        if len(known) < 2 or known[0] <= 0 or known[-1] < _LOG_RATIO * known[0]:
            return False
        linear = (known - known[0]) / (known[-1] - known[0])
        logarithmic = np.log(known / known[0]) / np.log(known[-1] / known[0])
        return abs(logarithmic.mean() - 0.5) <= abs(linear.mean() - 0.5) + 1e-9

    @cached_property
    def few(self) -> bool:
        """Whether its values can be named one by one: those of a grid can, draws of a search cannot."""
        short = self.numbers is None or all(len(value) <= _SHORT for value in self.values if value is not None)
        return len(self.categories) <= _FEW and short

    @cached_property
    def categories(self) -> list[str]:
        """The distinct values: numbers in their order, words in that of the runs."""
        distinct = list(dict.fromkeys(value for value in self.values if value is not None))
        numbers = [_number(value) for value in distinct]
        if any(number is None for number in numbers):
            return distinct
        return [value for _, value in sorted(zip(numbers, distinct, strict=True))]


@dataclass(frozen=True)
class Trial:
    """A run as the charts of its sweep show it: ``values`` by objective, None where it has none.

    ``index`` is its place among the values of a ``Parameter``; ``goodness`` places the first objective between 0, as
    bad as the worst tenth, and 1, the best; None unless finished.
    """

    run: RunRecord
    index: int
    values: tuple[float | None, ...]
    goodness: float | None = None
    best: bool = False

    @property
    def number(self) -> str:
        """The name of its folder in that of the sweep."""
        return self.run.folder.name

    @property
    def state(self) -> str:
        return self.run.state

    @property
    def value(self) -> float | None:
        return self.values[0] if self.values else None


def read_trials(record: SweepRecord) -> list[Trial]:
    """The runs of a sweep in their order, with what they reached."""
    objectives = record.objectives
    reached = [tuple(objective_value(run, *objective) for objective in objectives) for run in record.runs]
    best = best_run(record.runs, *objectives[0]) if objectives else None
    goodness = _goodness(record.runs, [values[0] if values else None for values in reached], objectives)
    return [
        Trial(run, index, values, good, run is best)
        for index, (run, values, good) in enumerate(zip(record.runs, reached, goodness, strict=True))
    ]


def _goodness(
    runs: Sequence[RunRecord], values: Sequence[float | None], objectives: Sequence[tuple[str, str]]
) -> list[float | None]:
    sign = -1.0 if objectives and objectives[0][1] == "min" else 1.0
    signed = [
        None if value is None or run.state != FINISHED else sign * value
        for run, value in zip(runs, values, strict=True)
    ]
    known = [value for value in signed if value is not None]
    if not known:
        return signed
    low, high = float(np.quantile(known, 0.1)) if len(known) > 9 else min(known), max(known)
    width = (high - low) or 1.0
    return [None if value is None else min(max((value - low) / width, 0.0), 1.0) for value in signed]


def read_parameters(
    runs: Sequence[RunRecord], names: Sequence[str], scales: Mapping[str, str] | None = None
) -> list[Parameter]:
    """The parameters ``names`` over ``runs``; a value that a run did not override is the one that its config had.
    ``scales`` tells "log" or "linear" of what was drawn from a range."""
    known = scales or {}
    return [Parameter(name, tuple(value_in_effect(run, name) for run in runs), known.get(name)) for name in names]


def value_in_effect(run: RunRecord, name: str) -> str | None:
    """The value of an override in a run: as given, else the chosen option of a group, else what the config says."""
    if name in run.overrides:
        return run.overrides[name]
    if name in run.run.get("choices", {}):
        return str(run.run["choices"][name])
    node: Any = run.config
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return None if isinstance(node, dict | list) else _plain(node)


def objective_value(run: RunRecord, metric: str, direction: str | None = None) -> float | None:
    """What a run reached: its final metric, ``seconds/STAGE``, ``resources/NAME``; or, where it was pruned, killed or
    still runs, the best epoch so far. None for a failed run and where nothing was measured."""
    if run.state == FAILED:
        return None
    final = run.measured(metric)
    if final is not None:
        return final
    reached = [value for _, value in curve(run, metric)]
    return min(reached, key=lambda value: cost_of(metric, value, direction), default=None)


def curve(run: RunRecord, metric: str) -> list[tuple[float, float]]:
    """``(epoch, value)`` of the epochs in which a metric was measured and finite."""
    points = [(row.get("epoch"), _finite(row.get(metric))) for row in run.epochs]
    return [(float(epoch), value) for epoch, value in points if epoch is not None and value is not None]


def best_run(runs: Sequence[RunRecord], metric: str, direction: str) -> RunRecord | None:
    """The finished run with the best value, the earlier one of equals; None where none has finished with one."""
    reached = {
        position: value
        for position, run in enumerate(runs)
        if run.state == FINISHED and (value := objective_value(run, metric, direction)) is not None
    }
    if not reached:
        return None
    return runs[(min if direction == "min" else max)(reached, key=reached.__getitem__)]


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str) -> float | None:
    try:
        return _finite(float(text))
    except ValueError:
        return None


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
