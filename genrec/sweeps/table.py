"""The answer of a sweep on the terminal: the runs, the best first, the spread over seeds, how to repeat the best."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genrec.records import FINISHED, RunRecord, SweepRecord
from genrec.report.seed_groups import SeedGroup, seed_groups
from genrec.sweeps.callback import best_first, sweep_columns
from genrec.tables import short_names

WIDTH = 150  # where the output is no terminal: no header of six metrics is cut


def print_answer(record: SweepRecord, csv: Path, page: Path | None, console: Console | None = None) -> None:
    """Prints the table of a sweep, that over seeds where there are several, and where the page is."""
    from genrec.report.sweep_page import best_command

    console = console or (Console() if sys.stdout.isatty() else Console(width=WIDTH))
    ordered = best_first(record)
    columns = sweep_columns(ordered[0], [metric for metric, _ in record.objectives])
    console.print(runs_table(ordered, record.swept, columns))
    groups = [group for group in seed_groups(record) if len(group.seeds) > 1]
    if groups:
        console.print(seeds_table(groups, columns))
    places = [str(csv)]
    if ordered[0].state == FINISHED and len(ordered) > 1 and not groups:
        places.append(f"the best again: {best_command(record)}")
    if page is not None:
        places.append(f"page: {page}")
    for line in places:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def runs_table(runs: Sequence[RunRecord], names: Sequence[str], columns: Sequence[str]) -> Table:
    """The runs in the order given: what was changed (``names``), then the metrics ``columns``, or how it ended."""
    table = Table(title=f"{len(runs)} runs, the best first", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("run")
    for name in short_names(names):
        table.add_column(escape(name), overflow="fold")
    for column in columns:
        table.add_column(escape(column), justify="right", overflow="fold")
    for run in runs:
        changed = [escape(run.overrides.get(name, "")) for name in names]
        numbers = [_number(run.measured(column)) for column in columns]
        ended = [run.state, *("" for _ in columns[1:])][: len(columns)]
        table.add_row(escape(run.folder.name), *changed, *(numbers if run.state == FINISHED else ended))
    return table


def seeds_table(groups: Sequence[SeedGroup], metrics: Sequence[str]) -> Table:
    """Mean, standard deviation over seeds and the 95 % interval of the mean (Student's t), a row per configuration."""
    names = list(dict.fromkeys(name for group in groups for name in group.overrides))
    title = "over seeds: mean ± standard deviation [95 % interval]"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    for name in short_names(names):
        table.add_column(escape(name), overflow="fold")
    table.add_column("seeds", justify="right")
    for metric in metrics:
        table.add_column(escape(metric), justify="right")
    for group in groups:
        changed = [escape(group.overrides.get(name) or "") for name in names]
        table.add_row(*changed, str(len(group.seeds)), *(_spread(group, metric) for metric in metrics))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _spread(group: SeedGroup, metric: str) -> str:
    if metric not in group.mean:
        return "-"
    interval = f"[{_number(group.low[metric])}, {_number(group.high[metric])}]"
    return escape(f"{_number(group.mean[metric])} ± {_number(group.std[metric])}\n{interval}")
