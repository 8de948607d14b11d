"""The tables of the page of a sweep: all runs, what went wrong, the config that all runs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec.masking import masked, scrub
from genrec.records import FAILED, FINISHED, KILLED, RunRecord
from genrec.report import html
from genrec.report.html import Cell, Section, badge, element
from genrec.report.scales import format_number, format_seconds
from genrec.report.sweep_marks import Objective, describe, link_to
from genrec.report.sweep_view import KINDS, SweepView
from genrec.report.trials import Trial, curve


def runs_section(view: SweepView) -> Section | None:
    """Every run, the best first; None where there is none."""
    if not view.trials:
        return None
    objectives = [metric for metric, _ in view.objectives]
    tests = view.test_metrics()
    head = ["run", "state", *objectives, *view.names, *tests, "best epoch", "time"]
    ordered = _best_first(view)
    rows = [
        [
            number_cell(trial),
            Cell(badge(trial.state, KINDS.get(trial.state, "")), trial.state),
            *trial.values,
            *settings(view, trial),
            *(trial.run.final.get(name) for name in tests),
            _best_epoch(trial.run, view.objectives),
            Cell(format_seconds(seconds := view.seconds_of(trial.run)), seconds),
        ]
        for trial in ordered
    ]
    note = "The best first; a click on a heading sorts."
    if any(trial.state not in (FINISHED, FAILED) and trial.value is not None for trial in ordered):
        note += " Runs that did not finish show their best epoch."
    table = html.table(head, rows, highlight=lambda row, column: ordered[row].best and column == 2)
    return Section("All runs", table, note=note)


def _best_first(view: SweepView) -> list[Trial]:
    sign = 1.0 if view.objectives and view.objectives[0][1] == "min" else -1.0
    return sorted(
        view.trials,
        key=lambda trial: (trial.state != FINISHED, trial.value is None, sign * (trial.value or 0.0), trial.index),
    )


def number_cell(trial: Trial) -> Cell:
    """The number of a run, a link to its page."""
    number = int(trial.number) if trial.number.isdecimal() else trial.number
    return Cell(element("a", trial.number, href=link_to(trial), data_run=trial.number), number)


def settings(view: SweepView, trial: Trial) -> list[Cell | None]:
    """The values of the swept parameters in a run; None where it has no such key."""
    cells: list[Cell | None] = []
    for parameter in view.parameters:
        value = parameter.values[trial.index]
        number = parameter.numbers[trial.index] if parameter.numbers else None
        cells.append(None if value is None else Cell(_short_value(value, number), value if number is None else number))
    return cells


def _short_value(value: str, number: float | None) -> str:
    """A number that a search drew with all its digits, as short as it can be read."""
    return value if number is None or len(value) <= 8 else f"{number:.4g}"


def _best_epoch(run: RunRecord, objectives: Sequence[Objective]) -> Cell | None:
    for metric, direction in objectives:
        points = curve(run, metric)
        if points:
            epoch = (min if direction == "min" else max)(points, key=lambda point: point[1])[0]
            return Cell(f"{epoch:.0f} of {len(run.epochs)}", epoch)
    return None


def failures_section(view: SweepView) -> Section | None:
    """The runs that failed or were killed, and why."""
    ended = [trial for trial in view.trials if trial.state in (FAILED, KILLED)]
    if not ended:
        return None
    rows = [
        [
            number_cell(trial),
            Cell(badge(trial.state, KINDS[trial.state]), trial.state),
            Cell(scrub(trial.run.error or "The process ended without a word.", view.secrets), classes="wrap"),
            Cell(", ".join(describe(trial, view.parameters, []).splitlines()[1:]), classes="wrap"),
        ]
        for trial in ended
    ]
    return Section("What went wrong", html.table(["run", "state", "why", "setting"], rows))


def config_section(view: SweepView) -> Section | None:
    """What the configs of all runs have in common."""
    import yaml

    configs = [run.config for run in view.record.runs if run.config]
    shared = common(configs)
    if not shared:
        return None
    text = scrub(yaml.safe_dump(masked(shared), sort_keys=False, allow_unicode=True), view.secrets)
    body = html.details(f"config.yaml, without what differs between the {len(configs)} runs", html.code(text))
    return Section("What all runs share", body)


def common(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The keys of nested mappings that have the same value in all of them."""
    if not configs:
        return {}
    shared: dict[str, Any] = {}
    for key, value in configs[0].items():
        others = [config[key] for config in configs[1:] if key in config]
        if len(others) + 1 < len(configs):
            continue
        if isinstance(value, dict) and value and all(isinstance(other, dict) for other in others):
            inner = common([value, *others])
            if inner:
                shared[key] = inner
        elif all(other == value and type(other) is type(value) for other in others):
            shared[key] = value
    return shared


def told(view: SweepView, trial: Trial) -> dict[str, Any]:
    """What the pointer is told of a run: a heading, then names and values."""
    state = "" if trial.state == FINISHED else f" ({trial.state})"
    reached = [
        (metric, format_number(value))
        for (metric, _), value in zip(view.objectives, trial.values, strict=True)
        if value is not None
    ]
    cells = zip(view.names, settings(view, trial), strict=True)
    chosen = [(name, str(cell.content)) for name, cell in cells if cell is not None]
    return {"head": f"run {trial.number}{state}", "lines": [*reached, *chosen]}
