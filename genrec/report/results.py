"""What several sides measured on the same test users, lined up so that they can be resampled together.

S sides, M metrics, n users, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError
from genrec.report.bootstrap import resampled_means
from genrec.report.sides import Side
from genrec.tables import TEST_PREFIX, metric_columns

if TYPE_CHECKING:
    import polars as pl

KNOWN = ("user_id", "history_length", "num_targets", "target_popularity")  # columns that are no metrics
FIRST_LOOK = ("auc", "gauc", "log_loss", "rmse", "mae")
MOST_METRICS = 8


@dataclass(frozen=True)
class Estimates:
    """Metrics ``values`` (S, M) and the same on resamples, ``draws`` (R, S, M)."""

    values: np.ndarray
    draws: np.ndarray


class UserResults:
    """Metrics of every test user of a retrieval run, averaged over the seeds of a side.

    ``values`` (S, n, M); ``seed_means`` holds for each side the means (runs, M); ``traits`` are what users are divided
    by, (n,) each.
    """

    unit = "users"

    def __init__(self, sides: Sequence[Side], metrics: Sequence[str] = ()) -> None:
        tables = [[_user_table(side, place) for place in range(len(side.runs))] for side in sides]
        available = [
            [_own_metrics(table, side.baseline) for table in row] for row, side in zip(tables, sides, strict=True)
        ]
        self.metrics = chosen_metrics(
            metrics, sides, [set.intersection(*map(set, row)) for row in available], available[0][0]
        )
        reference = tables[0][0]
        columns = [
            [_values(table, side, self.metrics, reference, sides[0]) for table in row]
            for row, side in zip(tables, sides, strict=True)
        ]
        everything = np.stack([values for row in columns for values in row])
        whole = np.asarray(np.isfinite(everything).all(axis=(0, 2)))
        count = np.count_nonzero(whole)
        if count < 2:
            raise GenrecError(f"{sides[0].given} has {count} test users with results; a comparison needs at least 2.")
        self.values = np.stack([np.mean(row, axis=0)[whole] for row in columns])
        self.seed_means = [np.stack([values[whole].mean(axis=0) for values in row]) for row in columns]
        self.ids = [user for user, kept in zip(reference["user_id"].to_list(), whole, strict=True) if kept]
        self.known = {name: reference[name].to_numpy()[whole] for name in KNOWN[1:] if name in reference.columns}
        self.traits = {
            title: self.known[name]
            for title, name in (("history length", "history_length"), ("target popularity", "target_popularity"))
            if name in self.known
        }

    @property
    def size(self) -> int:
        return self.values.shape[1]

    def estimate(self, *, resamples: int, seed: int, chosen: np.ndarray | None = None) -> Estimates:
        """The metrics of the users ``chosen`` (n,) bool, by default all."""
        values = self.values if chosen is None else self.values[:, chosen]
        sides, users, metrics = values.shape
        draws = resampled_means(values.transpose(1, 0, 2).reshape(users, -1), resamples=resamples, seed=seed)
        return Estimates(values.mean(axis=1), draws.reshape(resamples, sides, metrics))

    def per_unit(self, metric: str) -> np.ndarray | None:
        """(S, n) values of each user."""
        return self.values[:, :, self.metrics.index(metric)]


def _user_table(side: Side, place: int) -> pl.DataFrame:
    table = side.runs[place].users()
    if table is None:
        raise GenrecError(f"{side.runs[place].folder} holds no results per user. Run it again.")
    return table.sort("user_id")


def _own_metrics(table: pl.DataFrame, baseline: str | None) -> list[str]:
    prefix = "" if baseline is None else f"baseline/{baseline}/"
    names = [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]
    return [name for name in names if name not in KNOWN and not name.startswith("baseline/")]


def _values(
    table: pl.DataFrame, side: Side, metrics: Sequence[str], reference: pl.DataFrame, first: Side
) -> np.ndarray:
    """(n, M) metrics of a run for the users of the reference, in their order."""
    ours, theirs = reference["user_id"], table["user_id"]
    if ours.dtype != theirs.dtype or not ours.equals(theirs):
        only_ours, only_theirs = (
            set(ours.to_list()) - set(theirs.to_list()),
            set(theirs.to_list()) - set(ours.to_list()),
        )
        raise GenrecError(
            f"{first.given} and {side.given} did not test the same users: {len(only_ours):,} only in the first, "
            f"{len(only_theirs):,} only in the other. Run both with the same data= and split=."
        )
    prefix = "" if side.baseline is None else f"baseline/{side.baseline}/"
    return table.select([f"{prefix}{name}" for name in metrics]).to_numpy().astype(np.float64)


def chosen_metrics(
    wanted: Sequence[str], sides: Sequence[Side], available: Sequence[set[str]], order: Sequence[str]
) -> list[str]:
    """The metrics that were asked for, or those that people look at first among what all sides have."""
    for side, found in zip(sides, available, strict=True):
        if not found:
            raise GenrecError(no_results(side))
    common = [name for name in order if all(name in found for found in available)]
    lengths = "; ".join(f"{side.given} has k_values={side.run.config.get('k_values')}" for side in sides)
    if not common:
        raise GenrecError(
            f"These runs have no metric in common: {lengths}. Run one of them again with the k_values of the other."
        )
    for name in wanted:
        for side, found in zip(sides, available, strict=True):
            if name not in found:
                hint = f" ({lengths})" if "@" in name else ""
                raise GenrecError(f"{side.given} has no {name}{hint}. In common are {', '.join(common)}.")
    if wanted:
        return list(dict.fromkeys(wanted))
    ranked = metric_columns({TEST_PREFIX + name: 0.0 for name in common})
    if any("@" in name for name in ranked):
        return ranked
    first = [name for name in common if name.rpartition("/")[2] in FIRST_LOOK]
    return (first or common)[:MOST_METRICS]


def no_results(side: Side) -> str:
    if side.baseline is None:
        return f"{side.given} holds no metrics per user. Run it again."
    known = list(side.run.config.get("baselines") or {})
    there = f"There are {', '.join(known)}." if known else "It evaluated none."
    return f"{side.given}: no baseline {side.baseline!r} was evaluated in {side.run.folder}. {there}"
