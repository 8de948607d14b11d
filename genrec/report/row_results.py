"""What several sides predicted of the same test rows, lined up so that their metrics can be resampled together.

S sides, M metrics, E elements (a metric of one task), n rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError
from genrec.report.bootstrap import AreaUnderCurve, FunctionOfSums, Statistic, resampled_statistics
from genrec.report.results import FIRST_LOOK, Estimates, chosen_metrics, no_results
from genrec.report.sides import Side

if TYPE_CHECKING:
    import polars as pl

CLASSIFICATION = ("auc", "gauc", "log_loss", "brier")
REGRESSION = ("rmse", "mae", "mse", "r2")
MEAN_OF_TASKS = "auc"  # averaged over tasks, as the trainers do
_EPSILON = 1e-7  # as in genrec.metrics.binary, which needs torch
_LABEL, _PREDICTION, _GROUP = "label/", "prediction/", "group"


class RowResults:
    """Labels and predictions of every test row of a ranking run; metrics are computed from them.

    Where rows belong to groups (users), whole groups are resampled.
    """

    unit = "rows"

    def __init__(self, sides: Sequence[Side], metrics: Sequence[str] = ()) -> None:
        tables = [[_row_table(side, place) for place in range(len(side.runs))] for side in sides]
        reference = tables[0][0]
        for row, side in zip(tables, sides, strict=True):
            for table in row:
                _check_rows(reference, table, sides[0], side)
        self.groups = _codes(reference[_GROUP].to_numpy()) if _GROUP in reference.columns else None
        self.labels = {name.removeprefix(_LABEL): reference[name].to_numpy().astype(np.float64)
                       for name in reference.columns if name.startswith(_LABEL)}  # fmt: skip
        self.predictions = [
            [_predictions(table, side, list(self.labels)) for table in row]
            for row, side in zip(tables, sides, strict=True)
        ]
        self.size = len(reference)
        if self.size < 2:
            raise GenrecError(f"{sides[0].given} has {self.size} test rows; a comparison needs at least 2.")
        available = self._available()
        self.metrics = chosen_metrics(metrics, sides, [set(available)] * len(sides), available)
        self.seed_means = [self._values([runs])[0] for runs in self.predictions]
        sizes = None if self.groups is None else np.bincount(self.groups)[self.groups]
        self.traits: dict[str, np.ndarray] = {} if sizes is None else {"rows of the user": sizes}

    def estimate(self, *, resamples: int, seed: int, chosen: np.ndarray | None = None) -> Estimates:
        """The metrics of the rows ``chosen`` (n,) bool, by default all."""
        rows = np.arange(self.size) if chosen is None else np.flatnonzero(chosen)
        groups = None if self.groups is None else self.groups[rows]
        values, draws = [], []
        for runs in self.predictions:
            statistics = [statistic for run in runs for statistic in self._statistics(run, rows)]
            # The same seed gives every side the same resamples, and one side at a time needs less memory.
            found = resampled_statistics(statistics, len(rows), groups=groups, resamples=resamples, seed=seed)
            whole = np.stack([statistic(np.ones((1, len(rows))))[0] for statistic in statistics])
            draws.append(self._combined(found.reshape(resamples, len(runs), -1)).mean(axis=1))
            values.append(self._combined(whole.reshape(len(runs), -1)).mean(axis=0))
        return Estimates(np.stack(values), np.stack(draws, axis=1))

    def per_unit(self, metric: str) -> np.ndarray | None:
        """(S, rows with a label) losses of each row, or (S, groups) areas of each group; None for a metric that exists
        only of all rows together."""
        task, kind = self._parsed(metric)
        if task is None:
            return None
        known = np.flatnonzero(np.isfinite(self.labels[task]))
        labels = self.labels[task][known]
        found = [
            np.mean([_per_row(kind, run[task][known], labels, self._groups_of(known)) for run in runs], axis=0)
            for runs in self.predictions
        ]
        return np.stack(found) if found[0].ndim else None

    def _available(self) -> list[str]:
        names = []
        for task, labels in self.labels.items():
            kinds = CLASSIFICATION if _is_binary(labels) else REGRESSION
            kinds = [kind for kind in kinds if kind != "gauc" or self.groups is not None]
            names += [f"{task}/{kind}" if len(self.labels) > 1 else kind for kind in kinds]
        first = [name for name in names if name.rpartition("/")[2] in FIRST_LOOK]
        areas = [name for name in names if name.endswith(f"/{MEAN_OF_TASKS}")]
        return [*([MEAN_OF_TASKS] if areas else []), *first, *(name for name in names if name not in first)]

    def _parsed(self, metric: str) -> tuple[str | None, str]:
        """The task and the kind of a metric; the task of a mean over tasks is None."""
        task, _, kind = metric.rpartition("/")
        if task:
            return task, kind
        return (next(iter(self.labels)), kind) if len(self.labels) == 1 else (None, kind)

    @property
    def _elements(self) -> list[tuple[str, str]]:
        """The tasks and kinds that the chosen metrics need."""
        found: dict[tuple[str, str], None] = {}
        for metric in self.metrics:
            task, kind = self._parsed(metric)
            tasks = [task] if task else [name for name, labels in self.labels.items() if _is_binary(labels)]
            found.update(dict.fromkeys((name, kind) for name in tasks))
        return list(found)

    def _combined(self, elements: np.ndarray) -> np.ndarray:
        """(..., M) metrics from their elements (..., E): as they are, or the mean over tasks."""
        names = self._elements
        columns = []
        for metric in self.metrics:
            task, kind = self._parsed(metric)
            places = [place for place, name in enumerate(names) if name == (task or name[0], kind)]
            columns.append(elements[..., places].mean(axis=-1))
        return np.stack(columns, axis=-1)

    def _statistics(self, run: Mapping[str, np.ndarray], rows: np.ndarray) -> list[Statistic]:
        found = []
        for task, kind in self._elements:
            labels = self.labels[task][rows]
            known = np.flatnonzero(np.isfinite(labels))
            statistic = _statistic(kind, run[task][rows][known], labels[known], self._groups_of(rows[known]))
            found.append(statistic if len(known) == len(rows) else _OfRows(statistic, known))
        return found

    def _values(self, sides: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> list[np.ndarray]:
        rows, weights = np.arange(self.size), np.ones((1, self.size))
        return [
            np.stack(
                [self._combined(np.array([one(weights)[0] for one in self._statistics(run, rows)])) for run in runs]
            )
            for runs in sides
        ]

    def _groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self.groups is None else self.groups[rows]


class _OfRows:
    """A statistic of some of the rows."""

    def __init__(self, statistic: Statistic, rows: np.ndarray) -> None:
        self.statistic, self.rows = statistic, rows

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return self.statistic(weights[:, self.rows])


def _statistic(kind: str, predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> Statistic:
    if kind == "auc":
        return AreaUnderCurve(predicted, labels)
    if kind == "gauc":
        assert groups is not None
        return _grouped_area(predicted, labels, groups)
    if kind == "r2":
        squares = np.stack([np.square(predicted - labels), labels, np.square(labels)], axis=1)
        return FunctionOfSums(squares, lambda sums, weight: 1 - sums[:, 0] / (sums[:, 2] - sums[:, 1] ** 2 / weight))
    losses = _per_row("mse" if kind == "rmse" else kind, predicted, labels, groups)
    if kind == "rmse":
        return FunctionOfSums(losses, lambda sums, weight: np.sqrt(sums[:, 0] / weight))
    return FunctionOfSums(losses, lambda sums, weight: sums[:, 0] / weight)


def _per_row(kind: str, predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """(n,) losses of the rows, (groups,) areas for ``gauc``; a bare nan for what no single row has."""
    if kind == "log_loss":
        likely = np.clip(predicted, _EPSILON, 1 - _EPSILON)
        return -np.where(labels == 1, np.log(likely), np.log1p(-likely))
    if kind in ("mse", "rmse", "brier"):
        return np.square(predicted - labels)
    if kind == "mae":
        return np.abs(predicted - labels)
    if kind == "gauc" and groups is not None:
        return _areas(predicted, labels, groups)[0]
    return np.array(np.nan)


def _areas(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The area, the rows and the first row of each group that has both classes.

    The area of a group is the mean rank of its positives among the group, less what is due to the positives alone.
    """
    order = np.lexsort((predicted, groups))
    scores, truth, owners = predicted[order], labels[order], groups[order]
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    sizes = np.diff(starts, append=len(owners))
    positives = np.add.reduceat(truth, starts)
    tied = np.r_[True, (scores[1:] != scores[:-1]) | (owners[1:] != owners[:-1])]
    ends = np.flatnonzero(np.r_[tied[1:], True]) + 1
    begins = np.flatnonzero(tied)
    middle = ((begins + ends + 1) / 2)[np.cumsum(tied) - 1]  # ranks from 1, ties share their middle
    ranks = middle - np.repeat(starts, sizes)
    won = np.add.reduceat(ranks * truth, starts) - positives * (positives + 1) / 2
    both = (positives > 0) & (positives < sizes)
    areas = won[both] / (positives * (sizes - positives))[both]
    return areas, sizes[both], order[starts[both]]


def _grouped_area(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Statistic:
    """The mean area of the groups, weighted by their rows; groups are drawn whole, so the first row stands for all."""
    areas, sizes, first = _areas(predicted, labels, groups)
    columns = np.zeros((len(labels), 2))
    columns[first] = np.stack([areas * sizes, sizes], axis=1)
    return FunctionOfSums(columns, lambda sums, weight: sums[:, 0] / sums[:, 1])


def _row_table(side: Side, place: int) -> pl.DataFrame:
    table = side.runs[place].rows()
    if table is None:
        raise GenrecError(f"{side.runs[place].folder} holds no results per row. Run it again.")
    return table


def _check_rows(reference: pl.DataFrame, table: pl.DataFrame, first: Side, side: Side) -> None:
    """The same rows in the same order; their features may differ, since that may be the question."""
    same = [name for name in reference.columns if name.startswith(_LABEL) or name == _GROUP]
    theirs = [name for name in table.columns if name.startswith(_LABEL) or name == _GROUP]
    if same != theirs:
        raise GenrecError(
            f"{first.given} and {side.given} predict different labels: {', '.join(same)} and {', '.join(theirs)}. "
            "Run both with the same data.labels and data.group."
        )
    if len(reference) != len(table):
        reason = f"{len(reference):,} and {len(table):,} rows"
    elif any(not reference[name].equals(table[name]) for name in same if name != _GROUP):
        reason = "their labels differ"
    elif _GROUP in same and not np.array_equal(_codes(reference[_GROUP].to_numpy()), _codes(table[_GROUP].to_numpy())):
        reason = "their groups differ"
    else:
        return
    raise GenrecError(
        f"{first.given} and {side.given} did not test the same rows: {reason}. Run both with the same data= and split=."
    )


def _predictions(table: pl.DataFrame, side: Side, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    prefix = "" if side.baseline is None else f"baseline/{side.baseline}/"
    if f"{prefix}{_PREDICTION}{tasks[0]}" not in table.columns:
        raise GenrecError(no_results(side))
    return {task: table[f"{prefix}{_PREDICTION}{task}"].to_numpy().astype(np.float64) for task in tasks}


def _codes(groups: np.ndarray) -> np.ndarray:
    """Groups numbered in the order in which they first come, so that only who belongs together counts."""
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[codes.reshape(-1)]


def _is_binary(labels: np.ndarray) -> bool:
    known = labels[np.isfinite(labels)]
    return bool(np.isin(known, (0.0, 1.0)).all())
