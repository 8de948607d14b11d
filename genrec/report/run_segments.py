"""For whom a run works: its metrics by the length of the history and by the popularity of what was held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from genrec.records import RunRecord
from genrec.report.charts import bar_chart
from genrec.report.html import Cell, Markup, Section, details, element, grid, join, table
from genrec.report.scales import format_number
from genrec.report.segments import segment_table
from genrec.tables import BASELINE, USUAL_K

_TRAITS = {
    "history_length": ("history length", "interactions before the one to predict"),
    "target_popularity": ("popularity of the held-out items", "interactions of the held-out items in training"),
}
_KINDS = ("recall", "ndcg")
_MAX_RIVALS = 4
_NOTE = (
    "Test users in groups of about equal size. Whiskers are 95 % intervals of the mean: where they lie far apart, the "
    "difference is more than chance."
)


def segments_section(record: RunRecord) -> Section | None:
    """Bars per group of users, the model beside its baselines; None for runs without lists."""
    users = record.users()
    if users is None or not len(users):
        return None
    metrics = _metrics(users.columns)
    charts, tables = [], []
    for trait, (title, axis) in _TRAITS.items():
        if trait not in users.columns or users[trait].n_unique() < 2:
            continue
        for metric in metrics:
            columns = _columns(users.columns, metric, record.model)
            found = segment_table(users, trait, list(columns))
            charts.append(_chart(found, columns, f"{metric} by {title}", axis))
            tables += [_table(found, columns, metric, title)]
    if not charts:
        return None
    return Section(
        "For whom it works", join([grid(*charts, wide=True), details("The numbers", join(tables))]), note=_NOTE
    )


def _metrics(columns: Sequence[str]) -> list[str]:
    """Recall and NDCG at the usual length of a list or, where that is not there, the longest."""
    found = []
    for kind in _KINDS:
        lengths = [int(name.partition("@")[2]) for name in columns if name.startswith(f"{kind}@")]
        if lengths:
            found.append(f"{kind}@{USUAL_K if USUAL_K in lengths else max(lengths)}")
    return found


def _columns(columns: Sequence[str], metric: str, model: str) -> dict[str, str]:
    """The columns of a metric and whose it is there: ``{"recall@10": "tiger", "baseline/item_knn/recall@10": ...}``."""
    rivals = [name for name in columns if name.startswith(BASELINE) and name.endswith(f"/{metric}")][:_MAX_RIVALS]
    return {metric: model, **{name: name.removeprefix(BASELINE).partition("/")[0] for name in rivals}}


def _chart(found: pl.DataFrame, columns: dict[str, str], title: str, axis: str) -> Markup:
    buckets = found.unique("bucket", maintain_order=True)
    groups = [f"{name}\n{users:,} users" for name, users in zip(buckets["name"], buckets["users"], strict=True)]
    series, errors = {}, {}
    for column, whose in columns.items():
        rows = found.filter(pl.col("metric") == column)
        series[whose] = [None if math.isnan(mean) else mean for mean in rows["mean"]]
        errors[whose] = [
            (low, high) if math.isfinite(low) and math.isfinite(high) else None
            for low, high in zip(rows["low"], rows["high"], strict=True)
        ]
    return bar_chart(groups, series, title=title, x_label=axis, errors=errors)


def _table(found: pl.DataFrame, columns: dict[str, str], metric: str, title: str) -> Markup:
    rows = []
    for bucket in found.partition_by("bucket", maintain_order=True):
        first = bucket.row(0, named=True)
        rows.append([first["name"], first["users"], *(_interval(row) for row in bucket.iter_rows(named=True))])
    return join([element("h3", f"{metric} by {title}"), table(["group", "users", *columns.values()], rows)])


def _interval(row: dict[str, Any]) -> Cell:
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    interval = element("span", f" ({row['low']:.3f} to {row['high']:.3f})", class_="muted") if known else None
    return Cell(join([format_number(row["mean"]), interval]), row["mean"])
