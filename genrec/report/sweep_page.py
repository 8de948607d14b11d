"""The page of a sweep, made from its folder alone: what was searched, what came of it, and what made the difference."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

from genrec.artifacts import write_text
from genrec.directions import metric_mode
from genrec.masking import scrub
from genrec.records import FINISHED, KILLED, PRUNED, REPORT_FILE, RUNNING, RunRecord, SweepRecord, read_sweep
from genrec.report import html, sweep_charts, sweep_marks, sweep_summaries
from genrec.report.command_lines import best_command, resume_command, run_command, sweep_command
from genrec.report.html import Cell, Markup, Section, badge, element, join
from genrec.report.importance import Importances
from genrec.report.scales import format_number, format_seconds
from genrec.report.seed_groups import SeedGroup
from genrec.report.selection import mended
from genrec.report.sweep_marks import Objective, link_to
from genrec.report.sweep_tables import config_section, failures_section, number_cell, runs_section, settings, told
from genrec.report.sweep_view import KINDS, SweepView
from genrec.report.trials import Parameter, best_run, curve
from genrec.tables import short_names

__all__ = ["best_command", "write_sweep_page"]

_SWEEPERS = {"basic": "grid", "optuna": "search"}


def write_sweep_page(folder: Path) -> Path:
    """Writes ``report.html`` into the folder of a sweep, whatever its state; returns its path."""
    path = Path(folder) / REPORT_FILE
    record = read_sweep(folder)
    write_text(path, sweep_page(replace(record, runs=tuple(mended(run) for run in record.runs))))
    return path


def sweep_page(record: SweepRecord, now: float | None = None) -> str:
    """The page as text; ``now`` is the time of a sweep that still runs, seconds since 1970."""
    view = SweepView(record, time.time() if now is None else now)
    sections = [_headline(view), _over_seeds(view), _front(view), _what_mattered(view), _all_ways(view), _slices(view),
                _curves(view), runs_section(view), failures_section(view), config_section(view)]  # fmt: skip
    return html.page(_title(view), [section for section in sections if section is not None], subtitle=_subtitle(view))


# ---- the head -------------------------------------------------------------------------------------------------------


def _title(view: SweepView) -> str:
    models = ", ".join(dict.fromkeys(run.model for run in view.record.runs)) or "nothing yet"
    data = ", ".join(dict.fromkeys(run.data for run in view.record.runs))
    kind = "Seeds" if view.only_seeds else "Sweep"
    return f"{kind}: {models} on {data}" if data else f"{kind}: {models}"


def _subtitle(view: SweepView) -> Markup:
    record = view.record
    sweeper = str(record.sweep.get("sweeper") or "basic")
    started = record.sweep.get("started") or min((run.started for run in record.runs), default=None)
    parts = [badge(record.state, KINDS.get(record.state, "")), badge(_SWEEPERS.get(sweeper, sweeper))]
    if started:
        parts.append(element("span", time.strftime("%Y-%m-%d %H:%M", time.localtime(started))))
    return join([*parts, html.inline_code(record.folder)])


def _headline(view: SweepView) -> Section:
    parts: list[object] = [_style_and_script(view), _state_banner(view), html.tiles(_tiles(view))]
    if view.best is not None and view.groups and not view.only_seeds:
        run = _best_of_group(view.groups[0], view.objectives[0])
        parts += [html.paragraph(f"The best setting again, with one of its seeds (run {run.folder.name}):"),
                  _command(view, run_command(view.record, run))]  # fmt: skip
    elif view.best is not None and not view.only_seeds:
        number = view.best.folder.name
        parts += [html.paragraph(join(["The best run again (", _run_link(view, view.best, f"run {number}"), "):"])),
                  _command(view, best_command(view.record))]  # fmt: skip
    resume = resume_command(view.record)
    if resume and view.record.state != RUNNING:
        parts += [html.paragraph("The rest of the sweep:"), _command(view, resume)]
    if view.record.command:
        parts.append(html.details("The command that started it", _command(view, sweep_command(view.record))))
    return Section("", join(parts), id="head")


def _command(view: SweepView, line: str) -> Markup:
    return html.code(scrub(line, view.secrets))


def _best_of_group(group: SeedGroup, objective: Objective) -> RunRecord:
    return best_run(group.runs, *objective) or group.runs[0]


def _state_banner(view: SweepView) -> Markup | None:
    state, counts = view.record.state, view.counts
    if not view.record.runs:
        return html.banner("No run has started yet.", kind="busy" if state == RUNNING else "warn")
    if state == RUNNING:
        return html.banner(f"The sweep is running: {counts[FINISHED]} runs have finished.",
                           "This page shows how it stood when it was written.", kind="busy")  # fmt: skip
    if state == KILLED:
        started = f"The sweep was killed after {len(view.record.runs)} runs."
        return html.banner(started, "The command below goes on with it.", kind="warn")
    if not counts[FINISHED]:
        return html.banner("No run has finished.", "Why stands below, and in the run.log of each run.")
    return None


def _tiles(view: SweepView) -> list[tuple[str, object, str]]:
    training = sum(seconds for run in view.record.runs if (seconds := view.seconds_of(run)) is not None)
    wall, runs = view.wall_seconds, len(view.record.runs)
    at_once = f", {training / wall:.1f} at a time" if wall > 0 and training > 1.3 * wall else ""
    states = ", ".join(f"{count} {state}" for state, count in view.counts.most_common())
    tiles = [*_best_tiles(view), ("runs", runs, states),
             ("wall time", format_seconds(wall), f"{format_seconds(training)} of runs{at_once}")]  # fmt: skip
    return [*tiles, ("pruned", view.counts[PRUNED], _pruning(view))] if view.counts[PRUNED] else tiles


def _pruning(view: SweepView) -> str:
    """How much shorter the pruned runs were."""
    finished = [len(run.epochs) for run in view.record.runs if run.state == FINISHED and run.epochs]
    pruned = [len(run.epochs) for run in view.record.runs if run.state == PRUNED]
    if not finished or not pruned:
        return ""
    share = (sum(pruned) / len(pruned)) / (sum(finished) / len(finished))
    return f"after {share:.0%} of the epochs of a finished run"


def _best_tiles(view: SweepView) -> list[tuple[str, object, str]]:
    if view.best is None:
        return []
    tiles: list[tuple[str, object, str]] = []
    for index, objective in enumerate(view.objectives):
        metric, direction = objective
        title = f"{'lowest' if direction == 'min' else 'highest'} {metric}"
        if view.groups and metric in view.groups[0].mean:
            group = view.groups[0]
            low, high = format_number(group.low[metric]), format_number(group.high[metric])
            remark = f"± {format_number(group.std[metric])} over {len(group.seeds)} seeds; mean within {low} to {high}"
            tiles.append((title, format_number(group.mean[metric]), remark))
            continue
        run = best_run(view.record.runs, *objective)
        trial = next((trial for trial in view.trials if trial.run is run), None)
        if trial is not None:
            link = element("a", format_number(trial.values[index]), href=link_to(trial))
            tiles.append((title, link, f"run {trial.number}"))
    return tiles


def _run_link(view: SweepView, run: RunRecord, words: str) -> Markup:
    trial = next(trial for trial in view.trials if trial.run is run)
    return element("a", words, href=link_to(trial), data_run=trial.number)


# ---- what made the difference ---------------------------------------------------------------------------------------


def _over_seeds(view: SweepView) -> Section | None:
    if not view.groups:
        return None
    metrics = [metric for metric, _ in view.objectives]
    metrics += view.test_metrics()
    names = list(dict.fromkeys(name for group in view.groups for name in group.overrides))
    head = [*short_names(names), "seeds", *metrics]
    rows = [
        [*(group.overrides.get(name, "") for name in names), len(group.seeds), *(_mean_cell(group, m) for m in metrics)]
        for group in view.groups
    ]
    body = [sweep_summaries.seeds_chart(view.groups, objective) for objective in view.objectives]
    for name in metrics[len(view.objectives) :][:1]:
        body.append(sweep_summaries.seeds_chart(view.groups, (name, metric_mode(name))))
    note = ("A dot is a seed, the line their mean, the band the 95 % interval of the mean (Student's t). In the table: "
            "mean ± standard deviation over seeds, and the interval.")  # fmt: skip
    return Section("Over seeds", join([html.grid(*body, wide=True), html.table(head, rows)]), note=note)


def _mean_cell(group: SeedGroup, metric: str) -> Cell | None:
    if metric not in group.mean:
        return None
    words = f"{format_number(group.mean[metric])} ± {format_number(group.std[metric])}"
    interval = f"[{format_number(group.low[metric])}, {format_number(group.high[metric])}]"
    return Cell(join([words, element("br"), element("span", interval, class_="muted")]), group.mean[metric])


def _front(view: SweepView) -> Section | None:
    if len(view.objectives) < 2:
        return None
    chart = sweep_charts.pareto_chart(view.trials, view.parameters, view.objectives)
    if not chart:
        return None
    front = sweep_charts.pareto_front(view.trials, view.objectives)
    head = ["run", *(metric for metric, _ in view.objectives), *view.names]
    rows = [[number_cell(trial), *trial.values, *settings(view, trial)] for trial in front]
    return Section("The front", join([chart, html.table(head, rows)]),
                   note="Runs that no other beats in one objective without losing in the other.")  # fmt: skip


def _what_mattered(view: SweepView) -> Section | None:
    if not view.parameters or view.only_seeds:
        return None
    parts = [
        sweep_summaries.importance_chart(importances, objective[0], _trust(importances))
        or html.paragraph(importances.reason)
        for objective, importances in zip(view.objectives, view.importances, strict=True)
    ]
    note = ("How much of the differences between finished runs a random forest puts down to each parameter, alone and "
            "together with others; the lines span 80 % of resamples.")  # fmt: skip
    body = html.grid(*parts, _space(view), wide=True)
    return Section("What mattered", body, note=note if any(one.shares for one in view.importances) else "")


def _trust(importances: Importances) -> str:
    """Whether to believe the shares."""
    explained, runs = importances.explained, importances.num_runs
    if explained is None or explained <= 0.05:
        return f"From {runs} runs the forest predicts others no better than their mean does: take this as a guess."
    return f"From {runs} runs; the forest explains {explained:.0%} of the differences between runs it has not seen."


def _space(view: SweepView) -> Markup:
    """What was searched, parameter by parameter."""
    best = next((trial for trial in view.trials if trial.best), None)
    chosen = settings(view, best) if best is not None else [None] * len(view.parameters)
    rows = [
        [html.inline_code(parameter.name), Cell(_values(parameter), classes="wrap"), cell]
        for parameter, cell in zip(view.parameters, chosen, strict=True)
    ]
    return html.table(["parameter", "tried", "best run"], rows, sortable=False)


def _values(parameter: Parameter) -> str:
    distinct = parameter.categories
    missing = " (not in every run)" if None in parameter.values else ""
    if parameter.few or parameter.numbers is None:
        return ", ".join(distinct) + missing
    known = [number for number in parameter.numbers if number is not None]
    log = ", evenly in the logarithm" if parameter.log else ""
    return f"{len(distinct)} values from {_number(min(known))} to {_number(max(known))}{log}{missing}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _all_ways(view: SweepView) -> Section | None:
    if view.only_seeds or not view.objectives:
        return None
    chart = sweep_charts.parallel_coordinates(view.trials, view.parameters, view.objectives)
    if not chart:
        return None
    body = join([sweep_marks.legend(view.trials, view.objectives[0]), chart])
    return Section("Every run at a glance", body,
                   note="A line is a run. Point at one to see it in all charts; click to open its report.")  # fmt: skip


def _slices(view: SweepView) -> Section | None:
    if view.only_seeds or not view.objectives:
        return None
    charts = [
        sweep_charts.slice_chart(view.trials, view.parameters, parameter, view.objectives[0])
        for parameter in _by_importance(view)
    ]
    if not any(charts):
        return None
    return Section("Parameter by parameter", element("div", *charts, class_="grid slices"),
                   note="A point is a run. The other parameters move too, so look at the outline of the cloud and "
                        "at where its best points lie.")  # fmt: skip


def _by_importance(view: SweepView) -> list[Parameter]:
    order = {importance.name: place for place, importance in enumerate(view.importances[0].shares)}
    return sorted(view.parameters, key=lambda parameter: order.get(parameter.name, 0))


def _curves(view: SweepView) -> Section | None:
    if not view.objectives:
        return None
    objective = next((one for one in view.objectives if any(curve(run, one[0]) for run in view.record.runs)), None)
    charts = [sweep_charts.curves_chart(view.trials, view.parameters, objective)] if objective else []
    if not view.only_seeds and len(view.trials) > 2:
        charts.append(sweep_charts.progress_chart(view.trials, view.parameters, view.objectives[0]))
    charts = [chart for chart in charts if chart]
    if not charts:
        return None
    return Section("Curves", html.grid(*charts, wide=True),
                   note="Colours are those above: the better a run ended, the further along the scale.")  # fmt: skip


def _style_and_script(view: SweepView) -> Markup:
    runs = {trial.number: told(view, trial) for trial in view.trials}
    data = json.dumps(runs).replace("<", "\\u003c")
    return join([
        element("style", Markup(_asset("sweep.css"))),
        element("script", Markup(data), type="application/json", id="runs"),
        element("script", Markup(_asset("sweep.js"))),
    ])  # fmt: skip


@cache
def _asset(name: str) -> str:
    return resources.files("genrec.report").joinpath(name).read_text(encoding="utf-8")
