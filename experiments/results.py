"""The rows of ``results.csv``: how they are kept, which belong together, and the table that they make."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.artifacts import write_text

Row = dict[str, Any]
Key = tuple[str, ...]

DATA, MODEL, SEED = "data", "model", "seed"
UNKNOWN = ""  # of a published figure: whether seen items were masked is not said


@dataclass(frozen=True)
class Layout:
    """What rows of one kind have in common.

    ``names`` tell rows apart, the seed among them; ``shown`` are those of the table, in its order; ``metrics`` are its
    columns of numbers by their heads, the first of ``best`` that a table has puts its rows in order, best first;
    ``seconds`` is how many of them the time in ``clock`` counts.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    shown: Mapping[str, str]
    metrics: Mapping[str, str]
    best: str
    clock: str
    seconds: float


ITEMS = Layout(
    columns=(
        DATA, MODEL, SEED, "filter_seen", "recall@5", "ndcg@5", "recall@10", "ndcg@10", "coverage@10", "val_recall@10",
        "best_epoch", "epochs", "train_minutes", "parameters", "threads", "precision", "data_fingerprint",
        "semantic_ids_fingerprint", "code",
    ),
    names=(DATA, MODEL, "filter_seen", SEED),
    shown={DATA: "data", MODEL: "model", "filter_seen": "seen items"},
    metrics={"recall@5": "R@5", "ndcg@5": "N@5", "recall@10": "R@10", "ndcg@10": "N@10", "coverage@10": "coverage@10"},
    best="recall@10",
    clock="train_minutes",
    seconds=60.0,
)  # fmt: skip
LABELS = Layout(
    columns=(
        "table", DATA, "label", MODEL, SEED, "auc", "log_loss", "calibration", "gauc", "rmse", "best_epoch",
        "train_seconds", "parameters", "threads", "data_fingerprint", "code",
    ),
    names=("table", DATA, "label", MODEL, SEED),
    shown={DATA: "data", "label": "label", MODEL: "model"},
    metrics={"auc": "AUC", "log_loss": "log-loss", "calibration": "calibration"},
    best="auc",
    clock="train_seconds",
    seconds=1.0,
)  # fmt: skip
LAYOUTS = {"items": ITEMS, "labels": LABELS}


@dataclass(frozen=True)
class Group:
    """The rows that differ in their seed alone."""

    key: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> tuple[str, ...]:
        """Those of the rows; empty for a baseline, which has none."""
        return tuple(str(row[SEED]) for row in self.rows if str(row[SEED]) != "")

    def values(self, metric: str) -> list[float]:
        """A value per row that has the metric."""
        return [float(row[metric]) for row in self.rows if row.get(metric)]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.mean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """The sample standard deviation; None for a single value."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


def read_results(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_results(rows: Iterable[Row], path: Path, layout: Layout) -> None:
    """Writes rows in the order of their names."""
    columns = layout.columns
    ordered = sorted(rows, key=lambda row: key_of(row, layout.names))
    if not any(row.get("coverage@10") for row in ordered):
        columns = tuple(column for column in columns if column != "coverage@10")
    lines = [columns, *([str(row.get(column, "")) for column in columns] for row in ordered)]
    write_text(path, "".join(",".join(line) + "\n" for line in lines))


def add(rows: Iterable[Row], path: Path, layout: Layout) -> None:
    """Adds rows to a file; a row of the same names takes the place of the old one."""
    known = {key_of(row, layout.names): row for row in read_results(path)}
    known.update({key_of(row, layout.names): row for row in rows})
    write_results(known.values(), path, layout)


def key_of(row: Row, names: Sequence[str]) -> Key:
    return tuple(str(row[name]) for name in names)


def groups_of(rows: Iterable[Row], layout: Layout) -> dict[Key, Group]:
    """Rows by their names without the seed."""
    names = [name for name in layout.names if name != SEED]
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key_of(row, names), []).append(row)
    return {key: Group(dict(zip(names, key, strict=True)), tuple(group)) for key, group in found.items()}


def panels_of(rows: Iterable[Row], layout: Layout, metric: str = "") -> dict[Key, list[Group]]:
    """Groups that are compared with each other, by data and protocol or label, the best first."""
    found: dict[Key, list[Group]] = {}
    for group in groups_of(rows, layout).values():
        panel = tuple(group.key[name] for name in layout.shown if name != MODEL)
        found.setdefault(panel, []).append(group)
    for groups in found.values():
        groups.sort(key=lambda group: (-(group.mean(metric or layout.best) or 0.0), group.key[MODEL]))
    return dict(sorted(found.items(), key=lambda item: [(value == UNKNOWN, value) for value in item[0]]))


def table(rows: Sequence[Row], layout: Layout, published: Sequence[Row] = ()) -> str:
    """Markdown: a line per data set, model and protocol or label, mean and spread where seeds differ.

    ``published`` are rows of others' tables for the same data sets, each with its ``source``, put among the rest.
    """
    metrics = {name: head for name, head in layout.metrics.items() if any(row.get(name) for row in rows)}
    unit = "minutes" if layout.seconds == 60 else "seconds"
    heads = [*layout.shown.values(), *metrics.values(), "seeds", unit, *(["source"] if published else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for groups in panels_of([*rows, *published], layout).values():
        for group in groups:
            cells = [shown(name, group.key[name]) for name in layout.shown]
            cells += [_cell(group, metric) for metric in metrics]
            cells += [str(len(group.seeds) or ""), _time(group, layout)]
            cells += [group.rows[0].get("source", "")] if published else []
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(name: str, value: str) -> str:
    """A value as readers are told it."""
    return {"True": "masked", "False": "kept", UNKNOWN: "not said"}[value] if name == "filter_seen" else value


def figure(value: float | None) -> str:
    """Four digits after the point, and no zero before it."""
    if value is None:
        return ""
    text = f"{value:.4f}"
    return ".0000" if float(text) == 0 else text.replace("-0.", "-.").removeprefix("0")


def with_spread(mean: float | None, spread: float | None) -> str:
    return figure(mean) if spread is None else f"{figure(mean)} ± {figure(spread)}"


def _cell(group: Group, metric: str) -> str:
    return with_spread(group.mean(metric), group.spread(metric))


def _time(group: Group, layout: Layout) -> str:
    mean = group.mean(layout.clock)
    if mean is None:
        return ""
    return f"{mean:.1f}" if layout.seconds == 60 else f"{mean:.0f}"
