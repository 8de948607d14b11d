"""What the charts of a sweep share: the marks of runs with their colours, ranges, ticks, and places along a parameter.

Colours are CSS variables of ``sweep.css``; every mark of a run carries ``data-run``, by which ``sweep.js`` finds all
marks of the run that the pointer is on. Without the script, marks still have their titles and are links.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from genrec.directions import is_ratio
from genrec.records import FAILED, FINISHED, REPORT_FILE
from genrec.report import drawing
from genrec.report.drawing import Plot, text
from genrec.report.html import Markup, element, join
from genrec.report.scales import Scale, format_number, format_ticks, padded
from genrec.report.trials import Parameter, Trial
from genrec.tables import short_names

Objective = tuple[str, str]  # metric, "min" or "max"

_GOLDEN = 0.6180339887  # its multiples lie evenly between whole numbers, however many
_LETTER = 6.6  # the width of a letter, on average


def shade(goodness: float | None) -> str:
    """The CSS colour of a run by what it reached; that of ``none`` where it has no place among the others."""
    return "var(--run-none)" if goodness is None else drawing.ramp(goodness)


def arrow(direction: str) -> str:
    """The way in which values get better."""
    return "↓" if direction == "min" else "↑"


def describe(trial: Trial, parameters: Sequence[Parameter], objectives: Sequence[Objective]) -> str:
    """What the pointer is told of a run: its number, what it reached, what was set."""
    reached = [
        f"{name} {format_number(value)}"
        for (name, _), value in zip(objectives, trial.values, strict=False)
        if value is not None
    ]
    names = short_names([parameter.name for parameter in parameters])
    values = [parameter.values[trial.index] for parameter in parameters]
    settings = [f"{name} {value}" for name, value in zip(names, values, strict=True) if value is not None]
    state = "" if trial.state == FINISHED else f", {trial.state}"
    return "\n".join([f"run {trial.number}{state}", *reached, *settings])


def link_to(trial: Trial) -> str:
    """The relative link to the page of a run, or to its folder while it has none."""
    page, name = trial.run.folder / REPORT_FILE, quote(trial.number)
    return f"{name}/{REPORT_FILE}" if page.exists() else f"{name}/"


def shortened(text: str, room: float) -> str:
    """Text cut in its middle to ``room`` units of width."""
    letters = max(int(room / _LETTER), 4)
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


def legend(trials: Sequence[Trial], objective: Objective) -> Markup:
    """What the colours and the shapes of runs mean."""
    values = [trial.value for trial in trials if trial.goodness is not None and trial.value is not None]
    states = dict.fromkeys(trial.state for trial in trials if trial.state != FINISHED)
    keys = [element("span", _key(state), state, class_="key") for state in states]
    return element("div", _ramp(values, objective), *keys, class_="run-legend") if values or keys else Markup("")


def _ramp(values: Sequence[float], objective: Objective) -> Markup | None:
    metric, direction = objective
    worst, best = (max, min) if direction == "min" else (min, max)
    if not values:
        return None
    return drawing.ramp_legend(format_number(worst(values)), f"{format_number(best(values))} (best)", metric)


def _key(state: str) -> Markup:
    shape = cross(7, 7) if state == FAILED else element("circle", cx=7, cy=7, r=4.5)
    return element("svg", element("g", shape, class_=f"run {state}"), viewBox="0 0 14 14", aria_hidden="true")


def line(x0: float, y0: float, x1: float, y1: float, kind: str = "grid-line") -> Markup:
    """A straight line."""
    return element("line", x1=float(x0), y1=float(y0), x2=float(x1), y2=float(y1), class_=kind)


def fitted(x: float, y: float, full: str, room: float, kind: str, anchor: str = "middle", title: str = "") -> Markup:
    """Text cut to its room; the whole is under the pointer."""
    shown, title = shortened(full, room), title or full
    content = join([shown, element("title", title) if title != shown else None])
    return text(x, y, content, anchor=anchor, classes=kind)


def cross(x: float, y: float, size: float = 3.5) -> Markup:
    """A cross, for what failed or was cut short."""
    left, right, top, bottom = (f"{value:.2f}" for value in (x - size, x + size, y - size, y + size))
    return element("path", d=f"M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}")


def mark(trial: Trial, shapes: Sequence[Markup], title: str) -> Markup:
    """Something that stands for a run: a link that says which."""
    kind = f"run {trial.state}{' best' if trial.best else ''}"
    return element("a", element("title", title), *shapes, href=link_to(trial), data_run=trial.number, class_=kind,
                   style=f"--run: {shade(trial.goodness)}")  # fmt: skip


def dot(trial: Trial, x: float, y: float, title: str) -> Markup:
    """A run as a point; failed ones are crosses, other unfinished ones hollow, the best has a ring."""
    if trial.state == FAILED:
        return mark(trial, [cross(x, y)], title)
    ring = [element("circle", cx=float(x), cy=float(y), r=9, class_="ring")] if trial.best else []
    return mark(trial, [*ring, element("circle", cx=float(x), cy=float(y), r=4.5)], title)


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """The better ones last, so that they are drawn on top."""
    return sorted(trials, key=lambda trial: (trial.best, -1.0 if trial.goodness is None else trial.goodness))


def value_range(values: Sequence[float]) -> tuple[float, float, bool]:
    """Low, high, and whether values of one sign lie so far apart that only a logarithm shows them."""
    log = bool(values) and min(values) > 0 and max(values) > 50 * min(values)
    return *padded(values, log=log), log


def worth(trials: Sequence[Trial], index: int = 0) -> list[float]:
    """The values that an axis of an objective has to show: those of finished runs. What a pruned run reached in its few
    epochs would press all others together, so it may lie on the edge."""
    finished = [trial.values[index] for trial in trials if trial.state == FINISHED]
    known = [value for value in finished if value is not None]
    return known if len(set(known)) > 1 else [v for trial in trials if (v := trial.values[index]) is not None]


def within(scale: Scale, value: float) -> float:
    """The place of a value, that of the edge where it lies beyond."""
    return scale(min(max(value, scale.low), scale.high))


def area_of(
    trials: Sequence[Trial], objective: Objective, size: tuple[float, float], x_label: str, values: Sequence[float] = ()
) -> Plot:
    """A plot of the first objective, or of ``values``, against something between 0 and 1."""
    low, high, log = value_range(values or worth(trials))
    return drawing.plot((0, 1), (low, high), width=size[0], height=size[1], log_y=log, x_label=x_label,
                        y_label=named(objective))  # fmt: skip


def named(objective: Objective) -> str:
    """A metric with the way in which it gets better."""
    return f"{objective[0]} {'→ 1' if is_ratio(objective[0]) else arrow(objective[1])}"


def ticks_below(area: Plot, ticks: Sequence[tuple[float, str]]) -> Markup:
    """Words below the plot from left to right; those that would run into the one before are left out."""
    parts = []
    edge = float("-inf")
    for x, words in sorted(ticks):
        half = len(words) * _LETTER / 2
        if x - half > edge + 4:
            parts.append(text(min(x, area.width - half), area.bottom + 17, words, anchor="middle", classes="tick"))
            edge = x + half
    return join(parts)


@dataclass(frozen=True)
class Places:
    """Where each run lies along an axis, the ticks, and which places many runs may share."""

    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]
    shared: frozenset[float]


def places_of(parameter: Parameter, start: float, end: float, missing: float) -> Places:
    """The places of all runs between ``start`` and ``end``; runs without the key lie at ``missing``."""
    numbers = parameter.numbers
    if numbers is None:
        places, ticks = _category_places(parameter, start, end)
        shared = set(places)
    else:
        known = [number for number in numbers if number is not None]
        scale = Scale(min(known), max(known), start, end, parameter.log)
        shown = sorted(set(known)) if parameter.few else scale.ticks(5)
        ticks = list(zip(map(scale, shown), format_ticks(shown), strict=True))
        places = [missing if number is None else scale(number) for number in numbers]
        shared = set(places) if parameter.few else {missing}
    if None in parameter.values:
        places = [missing if value is None else place for value, place in zip(parameter.values, places, strict=True)]
        ticks = [*ticks, (missing, "not set")]
    return Places(tuple(places), tuple(ticks), frozenset({*shared, missing}))


def _category_places(parameter: Parameter, start: float, end: float) -> tuple[list[float], list[tuple[float, str]]]:
    categories = parameter.categories
    slot = (end - start) / len(categories)
    at = {category: start + (index + 0.5) * slot for index, category in enumerate(categories)}
    return [at.get(value or "", start) for value in parameter.values], [(at[name], name) for name in categories]


def fanned(places: Places, trials: Sequence[Trial], reach: float) -> list[float]:
    """The places, runs that share one spread around it in the order of what they reached."""
    moved = list(places.places)
    runs: dict[float, list[Trial]] = defaultdict(list)
    for trial in trials:
        if places.places[trial.index] in places.shared:
            runs[places.places[trial.index]].append(trial)
    for place, together in runs.items():
        together.sort(key=lambda trial: (trial.value is not None, trial.value or 0.0))
        step = min(2 * reach / max(len(together) - 1, 1), 4.0)
        for rank, trial in enumerate(together):
            moved[trial.index] = place - step * (rank - (len(together) - 1) / 2)
    return moved


def scattered(places: Places, trials: Sequence[Trial], reach: float) -> list[float]:
    """The places, runs that share one put beside each other without an order that would look like a slope."""
    met: dict[float, int] = defaultdict(int)
    moved = list(places.places)
    for trial in trials:
        place = places.places[trial.index]
        if place in places.shared:
            moved[trial.index] = place + reach * (2 * (0.5 + _GOLDEN * met[place]) % 2 - 1)
            met[place] += 1
    return moved
