"""``python -m genrec.report ls``: the runs there are, the newest first, and those that were asked for."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from genrec.artifacts import read_json
from genrec.contracts import GenrecError
from genrec.directions import cost_of
from genrec.records import SWEEP_FILE, RunRecord, SweepRecord
from genrec.report.arguments import count, folder, one_of, take_options, truth
from genrec.report.lines import Group, line_of, render, run_seconds
from genrec.report.selection import (
    Selection,
    check_keys,
    metric_of,
    parse_selection,
    runs_below,
    select,
    sweep_of,
    value_of,
    why_nothing,
)

VALUED, FLAGS = ("sort", "limit", "format", "runs_dir"), ("all", "errors")
FORMATS = ("table", "csv", "json")
ORDERS = ("when", "time", "folder")
SHOWN = 20


@dataclass(frozen=True)
class Request:
    """The command line of ``ls``, checked; ``limit`` None is all."""

    selection: Selection
    all: bool = False
    sort: str = "when"
    limit: int | None = SHOWN
    format: str = "table"
    errors: bool = False
    runs_dir: Path = Path("outputs")


def ls_command(arguments: Sequence[str], console: Console | None = None) -> None:
    """Lists runs; ``GenrecError`` for a mistake in the words."""
    request = parse(arguments)
    console = console or Console()
    runs = runs_below(request.runs_dir)
    keys = [condition.key for condition in request.selection.conditions]
    keys += [request.sort] if request.sort not in ORDERS else []
    check_keys(runs, keys, options=(*VALUED, *FLAGS, *ORDERS, "state", "since", "before", "sweep"))
    chosen = select(runs, request.selection)
    nothing = "" if chosen else why_nothing(runs, request.selection, request.runs_dir)
    if request.format == "table":
        _print_table(request, runs, chosen, nothing, console)
        return
    if nothing:
        sys.stderr.write(f"{nothing}\n")
    ordered = _ordered([Group(run.folder, (run,)) for run in chosen], request.sort)[: request.limit]
    write = as_csv if request.format == "csv" else as_json
    console.file.write(write([group.runs[0] for group in ordered]))


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    options, words = take_options(arguments, VALUED, FLAGS, {"-v": "errors", "-a": "all"})
    form = one_of(options, "format", FORMATS)
    runs_dir = folder(options, "runs_dir", "outputs")
    return Request(
        selection=parse_selection(words, runs_dir=runs_dir),
        all=truth(options, "all"),
        sort=options.get("sort", "when"),
        limit=count(options, "limit", SHOWN if form == "table" else None),
        format=form,
        errors=truth(options, "errors"),
        runs_dir=runs_dir,
    )


def grouped(chosen: Sequence[RunRecord], runs: Sequence[RunRecord], *, fold: bool = True) -> list[Group]:
    """The chosen of all ``runs``, those of one sweep taken together unless ``fold`` is False; a single one that was
    chosen of a sweep stands for itself."""
    sweeps = {run.folder: sweep for run in runs if (sweep := sweep_of(run)) is not None}
    jobs: dict[Path, list[RunRecord]] = {}
    for run in runs:
        if run.folder in sweeps:
            jobs.setdefault(sweeps[run.folder], []).append(run)
    found: dict[Path, list[RunRecord]] = {}
    for run in chosen:
        found.setdefault(sweeps.get(run.folder, run.folder) if fold else run.folder, []).append(run)
    groups = []
    for place, members in found.items():
        siblings = jobs.get(sweeps.get(members[0].folder, place), [])
        if place in jobs and (len(members) > 1 or len(siblings) == 1):
            groups.append(Group(place, tuple(members), _sweep_record(place, members), len(siblings)))
        else:
            varied = SweepRecord(place, {}, tuple(siblings)).swept
            groups.append(Group(members[0].folder, tuple(members), varied=tuple(varied)))
    return groups


def as_csv(runs: Sequence[RunRecord]) -> str:
    """A row per run: what it is, every override, every final metric."""
    facts = [_facts(run) for run in runs]
    plain = [name for name in _facts_names() if name not in ("overrides", "final")]
    overrides = [name for name in _all_names(fact["overrides"] for fact in facts) if name not in plain]
    metrics = _all_names(fact["final"] for fact in facts)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *overrides, *metrics])
    for fact in facts:
        cells = [fact[name] for name in plain]
        cells += [fact["overrides"].get(name) for name in overrides]
        writer.writerow([*cells, *(fact["final"].get(name) for name in metrics)])
    return text.getvalue()


def as_json(runs: Sequence[RunRecord]) -> str:
    """A list of runs, each with all that ``as_csv`` tells, ``overrides`` and ``final`` as mappings."""
    return json.dumps([_facts(run) for run in runs], indent=2) + "\n"


def _print_table(
    request: Request, runs: Sequence[RunRecord], chosen: Sequence[RunRecord], nothing: str, console: Console
) -> None:
    if nothing:
        console.print(nothing, highlight=False, markup=False, soft_wrap=True)
        return
    groups = grouped(chosen, runs, fold=not request.all and request.selection.sweep is None)
    shown = _ordered(groups, request.sort)[: request.limit]
    now = time.time()
    lines = [line_of(group, request.sort, now, request.errors) for group in shown]
    for text in render(lines, console.width if console.is_terminal else None):
        console.print(text, soft_wrap=True)
    hints = []
    if len(shown) < len(groups):
        hints.append(f"{len(groups) - len(shown)} more: limit=all")
    if any(group.sweep for group in shown):
        hints.append("the runs of a sweep: sweep=FOLDER, or all=true")
    if hints:
        console.print(Text("; ".join(hints), style="dim"), soft_wrap=True)


def _ordered(groups: Sequence[Group], sort: str) -> list[Group]:
    """Newest or longest first, folders by name, metrics with the best first, other keys upwards; unknown ones last."""
    if sort == "folder":
        return sorted(groups, key=lambda group: str(group.folder))
    if sort == "when":
        return sorted(groups, key=lambda group: -max(run.started for run in group.runs))
    if sort == "time":
        now = time.time()
        return sorted(groups, key=lambda group: -sum(run_seconds(run, now) or 0.0 for run in group.runs))
    return sorted(groups, key=lambda group: _rank(group, sort))


def _rank(group: Group, key: str) -> tuple[int, float, str]:
    value = group.metric(key)
    if value is None:
        value = value_of(group.best, key)[1]
    if isinstance(value, str):
        return 1, 0.0, value
    if not isinstance(value, int | float):
        return 2, 0.0, ""
    monitored = next((direction for name, direction in [group.objective or ("", "")] if name == key), None)
    return 0, cost_of(key, value, monitored) if monitored or "/" in key else value, ""


def _sweep_record(place: Path, members: Sequence[RunRecord]) -> SweepRecord:
    try:
        facts = read_json(place / SWEEP_FILE, dict)
    except GenrecError:
        facts = {}
    return SweepRecord(place, facts, tuple(members))


def _facts_names() -> tuple[str, ...]:
    return (
        "folder", "sweep", "state", "started", "ended", "seconds", "model", "data", "monitor", "best", "epochs",
        "error", "overrides", "final",
    )  # fmt: skip


def _facts(run: RunRecord) -> dict[str, Any]:
    """What the machine formats tell of a run; times in UTC."""
    sweep = sweep_of(run)
    seconds = run_seconds(run, time.time())
    best = metric_of(run, run.monitor) if run.monitor else None
    values = (
        str(run.folder), str(sweep) if sweep else None, run.state, _timestamp(run.started), _timestamp(run.ended),
        None if seconds is None else round(seconds, 2), run.model, run.data, run.monitor, best, len(run.epochs),
        run.error, run.overrides, run.final,
    )  # fmt: skip
    return dict(zip(_facts_names(), values, strict=True))


def _timestamp(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None


def _all_names(mappings: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
