"""Charts of the runs of a sweep as inline SVG: parallel coordinates, slices, progress, curves, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from genrec.records import FAILED, FINISHED
from genrec.report import drawing
from genrec.report.drawing import Plot, figure, text
from genrec.report.html import Markup, element, join
from genrec.report.scales import Scale, format_tick, format_ticks
from genrec.report.sweep_marks import (
    Objective,
    area_of,
    cross,
    describe,
    dot,
    fanned,
    fitted,
    in_order,
    line,
    mark,
    named,
    places_of,
    scattered,
    shortened,
    ticks_below,
    value_range,
    within,
    worth,
)
from genrec.report.trials import Parameter, Trial, curve
from genrec.tables import short_names

SMALL, LARGE = (360.0, 240.0), (520.0, 320.0)
_FAN = 9.0  # half the height over which runs of one value are spread
_LINE = 14.0  # the height of a line of text


def parallel_coordinates(
    trials: Sequence[Trial], parameters: Sequence[Parameter], objectives: Sequence[Objective]
) -> Markup:
    """A line per run through an axis per swept parameter; the last axes are the objectives, whose first colours it.

    Axes are logarithmic where the values spread so, and words lie at equal distances. Runs of one value are spread a
    little; the lines of failed runs end before the objective.
    """
    if not parameters or not any(trial.value is not None for trial in trials):
        return Markup("")
    count = len(parameters) + len(objectives)
    absent = any(None in parameter.values for parameter in parameters)
    width, height, ends = max(900.0, 150.0 * count), 370.0 if absent else 345.0, (48.0, 330.0)
    xs = [74 + index * (width - 74 - 70) / (count - 1) for index in range(count)]
    room = (width - 144) / (count - 1) - 14
    ways, drawn = [], []
    names = short_names([parameter.name for parameter in parameters])
    for x, parameter, name in zip(xs, parameters, names, strict=False):
        places = places_of(parameter, ends[1], ends[0], ends[1] + 32)
        ways.append(fanned(places, trials, _FAN))
        drawn.append(_upright(x, name, parameter.name, places.ticks, ends, room))
    for index, (x, objective) in enumerate(zip(xs[len(parameters) :], objectives, strict=True)):
        way, ticks = _objective_places(trials, index, ends)
        ways.append(way)
        drawn.append(_upright(x, named(objective), "", ticks, ends, room, right=index + 1 == len(objectives)))
    lines = [
        _run_line(
            trial,
            [(x, way[trial.index]) for x, way in zip(xs, ways, strict=True)],
            describe(trial, parameters, objectives),
        )
        for trial in in_order(trials)
    ]
    return figure(join([element("g", *lines), *drawn]), title=f"Parallel coordinates of {len(trials)} runs",
                  width=width, height=height, classes="parallel")  # fmt: skip


def _objective_places(
    trials: Sequence[Trial], index: int, ends: tuple[float, float]
) -> tuple[list[float | None], list[tuple[float, str]]]:
    values = [trial.values[index] for trial in trials]
    low, high, log = value_range(worth(trials, index))
    scale = Scale(low, high, ends[1], ends[0], log)
    ticks = scale.ticks(5)
    return [None if value is None else within(scale, value) for value in values], list(
        zip(map(scale, ticks), format_ticks(ticks), strict=True)
    )


def _upright(
    x: float,
    name: str,
    full: str,
    ticks: Sequence[tuple[float, str]],
    ends: tuple[float, float],
    room: float,
    *,
    right: bool = False,
) -> Markup:
    """An upright axis with its name above and its ticks on the left, or right."""
    parts = [line(x, ends[0] - 8, x, ends[1] + 8, "axis"),
             fitted(x, ends[0] - 24, name, room, "axis-name", title=full)]  # fmt: skip
    edge = float("inf")
    for y, words in sorted(ticks, reverse=True):
        if y <= edge - _LINE:
            edge = y
            side, anchor = (x + 8, "start") if right else (x - 8, "end")
            parts += [line(x - 3, y, x + 3, y, "axis"), fitted(side, y, words, 68, "tick middle halo", anchor)]
    return element("g", *parts)


def _run_line(trial: Trial, places: Sequence[tuple[float, float | None]], title: str) -> Markup:
    points = [(x, y) for x, y in places if y is not None]
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(
        f"C{(a + b) / 2:.1f} {p:.1f} {(a + b) / 2:.1f} {q:.1f} {b:.1f} {q:.1f}" for (a, p), (b, q) in pairwise(points)
    )
    return mark(trial, [element("path", d=d, class_="hit"), element("path", d=d, class_="line")], title)


def slice_chart(
    trials: Sequence[Trial], parameters: Sequence[Parameter], parameter: Parameter, objective: Objective
) -> Markup:
    """The values of one parameter against the first objective. Every other parameter moves too, so a cloud without a
    slope is that of a parameter that did not matter."""
    if not any(trial.value is not None for trial in trials):
        return Markup("")
    scale = "logarithmic" if parameter.log else ""
    area = area_of(trials, objective, SMALL, scale)
    absent = area.right - 20
    last = absent - 44 if None in parameter.values else area.right - 12
    places = places_of(parameter, area.left + 14, last, absent)
    spread = scattered(places, trials, 11.0)
    room = max((last - area.left) / max(len(places.ticks), 1) - 4, 32)
    ticks = [(x, shortened(words, room)) for x, words in places.ticks]
    dots = _dots(trials, spread, area, parameters, objective)
    axes = drawing.axes(area, x_label=scale, y_label=named(objective), x_ticks=False)
    return figure(join([axes, ticks_below(area, ticks), *dots]), title=parameter.name, width=SMALL[0], height=SMALL[1],
                  classes="slice")  # fmt: skip


def _dots(
    trials: Sequence[Trial], xs: Sequence[float], area: Plot, parameters: Sequence[Parameter], objective: Objective
) -> list[Markup]:
    """A point per run that reached something, and a cross on the floor per run that failed."""
    return [
        dot(
            trial,
            xs[trial.index],
            area.bottom if trial.value is None else within(area.y, trial.value),
            describe(trial, parameters, [objective]),
        )
        for trial in in_order(trials)
        if trial.value is not None or trial.state == FAILED
    ]


def progress_chart(trials: Sequence[Trial], parameters: Sequence[Parameter], objective: Objective) -> Markup:
    """What each run reached in the order of the runs, and the best so far as a step line."""
    if not any(trial.value is not None for trial in trials):
        return Markup("")
    area = area_of(trials, objective, LARGE, "run")
    x = Scale(0, max(len(trials) - 1, 1), area.left + 12, area.right - 12)
    finished = [trial for trial in trials if trial.state == FINISHED and trial.value is not None]
    best = accumulate((float(trial.value or 0.0) for trial in finished), min if objective[1] == "min" else max)
    steps = [(x(trial.index), area.y(reached)) for trial, reached in zip(finished, best, strict=True)]
    dots = _dots(trials, [x(trial.index) for trial in trials], area, parameters, objective)
    every = -(-len(trials) // 12)
    ticks = [(x(trial.index), trial.number) for trial in trials if trial.index % every == 0]
    axes = drawing.axes(area, x_label="run", y_label=named(objective), x_ticks=False)
    line = _steps([*steps, (area.right, steps[-1][1])], "the best so far") if steps else None
    return figure(join([axes, ticks_below(area, ticks), line, *dots]), title="What each run reached",
                  width=LARGE[0], height=LARGE[1], classes="progress-chart")  # fmt: skip


def _steps(points: Sequence[tuple[float, float]], title: str) -> Markup:
    """A line that goes sideways before it goes up or down."""
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
    return element("path", element("title", title), d=d, class_="front")


def pareto_front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The finished runs that no other one equals in both objectives and beats in one, by the first objective, the best
    first."""
    signs = [-1.0 if direction == "max" else 1.0 for _, direction in objectives[:2]]
    costs: dict[int, list[float]] = {}
    for trial in trials:
        reached = [sign * value for sign, value in zip(signs, trial.values, strict=False) if value is not None]
        if trial.state == FINISHED and len(reached) == 2:
            costs[trial.index] = reached
    front = [
        trial
        for trial in trials
        if trial.index in costs and not any(_dominates(other, costs[trial.index]) for other in costs.values())
    ]
    return sorted(front, key=lambda trial: costs[trial.index])


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and (a[0] < b[0] or a[1] < b[1])


def pareto_chart(trials: Sequence[Trial], parameters: Sequence[Parameter], objectives: Sequence[Objective]) -> Markup:
    """Two objectives against each other, and the front as a step line that no run lies beyond."""
    reached = {trial.index: pair for trial in trials if (pair := _pair(trial)) is not None}
    if not reached:
        return Markup("")
    low, high, log = value_range([first for first, _ in reached.values()])
    bottom, top, log_y = value_range([second for _, second in reached.values()])
    names = [named(objective) for objective in objectives[:2]]
    area = drawing.plot((low, high), (bottom, top), width=LARGE[0], height=LARGE[1] + 40, log_x=log, log_y=log_y,
                        x_label=names[0], y_label=names[1])  # fmt: skip
    at = {index: (area.x(first), area.y(second)) for index, (first, second) in reached.items()}
    front = pareto_front(trials, objectives)
    on_front = {trial.index for trial in front}
    dots = [
        element(
            "g",
            dot(trial, *at[trial.index], describe(trial, parameters, objectives)),
            class_="on-front" if trial.index in on_front else None,
        )
        for trial in sorted(trials, key=lambda trial: trial.index in on_front)
        if trial.index in at
    ]
    line = _steps([at[trial.index] for trial in front], "the front") if len(front) > 1 else None
    axes = drawing.axes(area, x_label=names[0], y_label=names[1])
    title = f"The front: {len(front)} runs that no other beats in both"
    return figure(join([axes, line, *dots]), title=title, width=area.width, height=area.height, classes="pareto")


def _pair(trial: Trial) -> tuple[float, float] | None:
    first, second = trial.values[:2] if len(trial.values) > 1 else (None, None)
    return None if first is None or second is None else (first, second)


def curves_chart(trials: Sequence[Trial], parameters: Sequence[Parameter], objective: Objective) -> Markup:
    """The validation curve of each run; the best is thick, the ends of runs that did not finish are marked."""
    curves = {trial.index: curve(trial.run, objective[0]) for trial in trials}
    known = [point for points in curves.values() for point in points]
    if not known:
        return Markup("")
    area = area_of(trials, objective, LARGE, "epoch", [value for _, value in known])
    epochs = [epoch for epoch, _ in known]
    x = Scale(min(epochs), max(epochs), area.left + 8, area.right - 46)
    lines = [
        _curve(
            trial,
            [(x(epoch), area.y(value)) for epoch, value in curves[trial.index]],
            describe(trial, parameters, [objective]),
        )
        for trial in in_order(trials)
        if curves[trial.index]
    ]
    ticks = [(x(value), format_tick(value)) for value in x.ticks(8) if value.is_integer()]
    axes = drawing.axes(area, x_label="epoch", y_label=named(objective), x_ticks=False)
    return figure(join([axes, ticks_below(area, ticks), *lines]), title=f"{objective[0]} by epoch, {len(lines)} runs",
                  width=area.width, height=area.height, classes="curves")  # fmt: skip


def _curve(trial: Trial, points: Sequence[tuple[float, float]], title: str) -> Markup:
    d = drawing.path(points)
    x, y = points[-1]
    shapes = [element("path", d=d, class_="hit"), element("path", d=d, class_="line")]
    if trial.state != FINISHED:
        shapes.append(element("g", cross(x, y), class_="end"))
    elif len(points) == 1:
        shapes.append(element("circle", cx=float(x), cy=float(y), r=3.5))
    if trial.best:
        shapes.append(text(x + 7, y, f"run {trial.number}", anchor="start", classes="best-label middle halo"))
    return mark(trial, shapes, title)
