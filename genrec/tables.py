"""Tables for people: what a run reached beside its baselines, the jobs of a sweep, a list of recommendations.

Nothing here computes a metric; tables are built from the flat ``name -> number`` mapping that ``metrics.json`` holds.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genrec.directions import is_ratio, metric_mode

log = logging.getLogger("genrec.run")

MAX_COLUMNS = 8
LOG_WIDTH = 120
BASELINE, CEILING, TEST_PREFIX = "baseline/", "ceiling/", "test/"
BEYOND_ACCURACY = ("coverage", "gini", "novelty", "popularity_lift", "diversity")
USUAL_K = 10
CHANCE_AUC = 0.5
FIRST_LOOK = ("/auc", "/log_loss", "/rmse")  # of the metrics of a task


def metric_columns(final: Mapping[str, float]) -> list[str]:
    """The test metrics worth a column, without their prefix: recall and NDCG where there are any, those that people
    look at first where several tasks have many, else all."""
    names = [name.removeprefix(TEST_PREFIX) for name in final if name.startswith(TEST_PREFIX)]
    ranking = [name for kind in ("recall@", "ndcg@") for name in names if name.startswith(kind)]
    if len(names) > MAX_COLUMNS and not ranking:
        names = [name for name in names if "/" in name and name.endswith(FIRST_LOOK)]
    return (ranking or names)[:MAX_COLUMNS]


def baseline_rows(final: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Test metrics per baseline: ``baseline/item_knn/test/recall@10`` becomes ``{"item_knn": {"recall@10": ...}}``."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in final.items():
        if key.startswith(BASELINE):
            name, _, metric = key.removeprefix(BASELINE).partition("/")
            if metric.startswith(TEST_PREFIX):
                rows.setdefault(name, {})[metric.removeprefix(TEST_PREFIX)] = value
    return rows


def results_table(final: Mapping[str, float], *, name: str, data: str) -> Table:
    """The model's test metrics above those of its baselines and, where known, the best that can be reached."""
    columns = metric_columns(final)
    title = f"{name} on {data}: test metrics"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    table.add_column("model")
    for column in columns:
        table.add_column(column.replace("/", "\n"), justify="right")
    own = {column: final[TEST_PREFIX + column] for column in columns}
    ceiling = {column: final.get(CEILING + TEST_PREFIX + column) for column in columns}
    baselines = baseline_rows(final)
    known = any(value is not None for value in ceiling.values())
    table.add_row(f"[bold]{escape(name)}[/bold]", *_numbers(own, columns), end_section=bool(baselines) or known)
    for position, (baseline, row) in enumerate(baselines.items(), start=1):
        table.add_row(escape(baseline), *_numbers(row, columns), end_section=known and position == len(baselines))
    if known:
        table.add_row("ceiling", *_numbers(ceiling, columns))
        shares = (_percent(share_of_ceiling(own[column], ceiling[column], column)) for column in columns)
        table.add_row(f"{name} / ceiling", *shares)
    return table


def beyond_accuracy_table(final: Mapping[str, float], *, name: str) -> Table | None:
    """What else is known of the lists of the model and its baselines, at k = 10 or else the largest; None: nothing."""
    own = {key.removeprefix(TEST_PREFIX): value for key, value in final.items() if key.startswith(TEST_PREFIX)}
    cut_offs = {int(metric.removeprefix("coverage@")) for metric in own if metric.startswith("coverage@")}
    if not cut_offs:
        return None
    k = USUAL_K if USUAL_K in cut_offs else max(cut_offs)
    baselines = baseline_rows(final)
    columns = [metric for metric in BEYOND_ACCURACY if f"{metric}@{k}" in own]
    names = [f"{column}@{k}" for column in columns]
    title = f"beyond accuracy (top {k})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    table.add_column("model")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_row(f"[bold]{escape(name)}[/bold]", *_numbers(own, names), end_section=bool(baselines))
    for baseline, row in baselines.items():
        table.add_row(escape(baseline), *_numbers(row, names))
    return table


def log_table(
    final: Mapping[str, float],
    *,
    name: str,
    data: str,
    folder: Path,
    seconds: Mapping[str, float] | None = None,
    page: Path | None = None,
) -> None:
    """Logs the results of a run, so that the terminal and ``run.log`` show the same: tables, run folder, time."""
    lines = []
    if metric_columns(final):
        lines += ["results", to_text(results_table(final, name=name, data=data), width=LOG_WIDTH)]
    beyond = beyond_accuracy_table(final, name=name)
    if beyond is not None:
        lines.append(to_text(beyond, width=LOG_WIDTH))
    lines.append(f"run folder: {folder}" + (f" (look at {page.name})" if page is not None else ""))
    if seconds:
        parts = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items() if stage != "total")
        lines.append(f"seconds: {seconds.get('total', sum(seconds.values())):.1f} ({parts})")
    log.info("%s", "\n".join(lines))


def short_names(names: Sequence[str]) -> list[str]:
    """The last part of each key (``optimizer.lr``: ``lr``), or the whole key where two would read the same."""
    last = [name.rpartition(".")[2] for name in names]
    return [short if last.count(short) == 1 else name for short, name in zip(last, names, strict=True)]


def items_table(rows: Iterable[Mapping[str, Any]], *, title: str) -> Table:
    """Items one per row: ``rank`` and ``score`` where the rows have them, ``item_id``, ``title``."""
    rows = list(rows)
    present = [name for name in ("rank", "item_id", "title", "score") if any(name in row for row in rows)]
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    for name in present or ["item_id", "title"]:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in present))
    return table


def to_text(table: Table, *, width: int) -> str:
    """A table as plain text without colour, for files and logs."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines() if line.strip())


def _numbers(row: Mapping[str, float | None], columns: Sequence[str]) -> list[str]:
    return [_cell(row.get(column)) for column in columns]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))


def share_of_ceiling(value: float | None, ceiling: float | None, metric: str) -> float | None:
    """Which share of what can be reached was reached; of an AUC, what lies above chance. None of errors, which have no
    such share."""
    chance = CHANCE_AUC if metric.endswith("auc") else 0.0
    if value is None or ceiling is None or ceiling <= chance or is_ratio(metric) or metric_mode(metric) == "min":
        return None
    return (value - chance) / (ceiling - chance)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
