"""Charts as inline SVG: lines, bars, points, heat maps and histograms.

They are drawn here, so a page shows them without its script, which adds tooltips and lets a series stand out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec.report import drawing
from genrec.report.drawing import HEIGHT, NUM_COLOURS, WIDTH, Key, Plot, drawable, figure
from genrec.report.html import Markup, element, join
from genrec.report.scales import Scale, format_exact, format_number, format_tick, format_ticks, log_ticks, padded, ticks

__all__ = [
    "Point",
    "Scale",
    "Series",
    "bar_chart",
    "format_number",
    "format_tick",
    "heat_map",
    "histogram",
    "line_chart",
    "log_ticks",
    "scatter_chart",
    "ticks",
]

_FEW_POINTS = 30  # more are shown only under the pointer
_MANY_TITLES = 1500  # above this no point has a title of its own; the script reads the numbers from elsewhere
_CHAR = 6.6
_LINE = 15  # height of a further line below the name of a group
_ROW = 30  # height of a group of horizontal bars


@dataclass(frozen=True)
class Series:
    """A line: ``y`` over ``x``, a gap where y is None or NaN; ``low`` and ``high`` are a band around it. ``colour`` is
    a number of the palette, by default its place among the series; ``note`` is added to its tooltips. What has the same
    ``link``, such as a row of a table, lights up together."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dashed: bool = False
    colour: int | None = None
    note: str = ""
    link: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a scatter chart; ``colour_value`` is its place on the sequential scale, in units of its own."""

    x: float
    y: float
    label: str = ""
    colour_value: float | None = None
    marked: bool = False
    link: str = ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_y: bool = False,
    log_x: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    height: float = HEIGHT,
    width: float = WIDTH,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
    note: str = "",
) -> Markup:
    """Lines over a common axis. ``marks`` are vertical lines ``(x, text)``. Numbers that are not finite, or not
    positive on a logarithmic axis, are left out."""
    xs = [x for one in series for x, y in zip(one.x, one.y, strict=True) if drawable(y, log=log_y)]
    bounds = [bound for one in series for bound in (*(one.low or ()), *(one.high or ()))]
    ys = [y for one in series for y in (*one.y, *bounds) if y is not None]
    area = drawing.plot(
        x_range or padded(xs, log=log_x, share=0.0 if len(set(xs)) > 1 else 0.05),
        y_range or padded(ys, log=log_y),
        width=width, height=height, log_x=log_x, log_y=log_y, x_label=x_label, y_label=y_label,
        top=13 * _mark_rows(marks, width),
    )  # fmt: skip
    whole = all(float(x).is_integer() for x in xs)  # there is no epoch 2.5
    num_points = sum(len(one.x) for one in series)
    parts = [_marks(area, marks)]
    parts += [_line(area, number, one, x_label, titles=num_points <= _MANY_TITLES) for number, one in enumerate(series)]
    keys = [Key(number, one.name, _colour(one, number), one.dashed) for number, one in enumerate(series)]
    return figure(
        join([drawing.axes(area, x_label=x_label, y_label=y_label, whole=whole), *parts]),
        title=title, width=width, height=height, note=note, classes="lines", x_label=x_label,
        legend=drawing.legend(keys) if legend else None,
    )  # fmt: skip


def _colour(series: Series, number: int) -> int:
    return (number if series.colour is None else series.colour) % NUM_COLOURS


def _line(area: Plot, number: int, series: Series, x_label: str, *, titles: bool) -> Markup:
    log = area.y.log
    points = [
        (area.x(x), area.y(y)) if y is not None and drawable(y, log=log) and drawable(x, log=area.x.log) else None
        for x, y in zip(series.x, series.y, strict=True)
    ]
    parts = [_band(area, series), element("path", d=drawing.path(points), class_="dashed" if series.dashed else None)]
    small = series.dashed or sum(point is not None for point in points) > _FEW_POINTS
    for place, x, y in zip(points, series.x, series.y, strict=True):
        if place is not None:
            where = f"{x_label} {format_exact(x)}" if x_label else format_exact(x)
            tip = f"{series.name}, {where}: {format_number(y)}{', ' + series.note if series.note else ''}"
            parts.append(_dot(*place, tip if titles else None, format_exact(x), format_number(y), small=small))
    return element("g", *parts, class_=f"series c{_colour(series, number)}", data_series=number,
                   data_name=series.name, data_note=series.note or None, data_link=series.link or None)  # fmt: skip


def _dot(x: float, y: float, tip: str | None, x_text: str, y_text: str, *, small: bool) -> Markup:
    title = element("title", tip) if tip else None
    return element("circle", title, cx=x, cy=y, r=3, class_="point small" if small else "point",
                   data_x=x_text, data_y=y_text)  # fmt: skip


def _band(area: Plot, series: Series) -> Markup | None:
    if series.low is None or series.high is None:
        return None
    log = area.y.log
    known = [
        (area.x(x), area.y(low), area.y(high))
        for x, low, high in zip(series.x, series.low, series.high, strict=True)
        if low is not None and high is not None and drawable(low, log=log) and drawable(high, log=log)
    ]
    outline: list[tuple[float, float] | None] = [(x, high) for x, _, high in known]
    outline += [(x, low) for x, low, _ in reversed(known)]
    return element("path", d=drawing.path(outline, close=True), class_="band")


def _mark_rows(marks: Sequence[tuple[float, str]], width: float) -> int:
    return min(len(marks), 3)


def _marks(area: Plot, marks: Sequence[tuple[float, str]]) -> Markup:
    """Vertical lines with their words above the plot, one row each so that none covers another."""
    rows = _mark_rows(marks, area.width)
    parts: list[Markup] = []
    for index, (x, words) in enumerate(sorted(marks)):
        at, row = area.x(x), index % max(rows, 1)
        at_top = area.top - 13 * row - 3
        right = at + _CHAR * len(words) + 8 < area.width
        parts.append(element("line", class_="mark", x1=at, x2=at, y1=at_top - 8, y2=area.bottom))
        parts.append(drawing.text(at + (5 if right else -5), at_top, words, anchor=None if right else "end",
                                  classes="mark-name"))  # fmt: skip
    return join(parts)


def bar_chart(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    y_label: str = "",
    x_label: str = "",
    errors: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
    horizontal: bool = False,
    width: float = WIDTH,
    height: float | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    one_each: bool = False,
    colours: Sequence[int] | None = None,
    note: str = "",
) -> Markup:
    """Bars side by side per group, a colour per series (``colours``: numbers of the palette); ``errors`` are
    ``(low, high)`` around each.

    ``labels`` are written at the ends of horizontal bars and in tooltips, by default the numbers. ``y_label`` names the
    values, ``x_label`` the groups. With ``one_each`` every group has a bar of one series only, so series are colours
    and nothing else. What follows a line break in the name of a group stands below it, smaller.
    """
    bars = _Bars(groups, series, errors or {}, labels or {}, one_each, colours or range(len(series)))
    if horizontal:
        height = height or 34 + max(_ROW, 15 * bars.abreast + 12) * len(groups) + (18 if y_label else 0)
        drawn = _horizontal(bars, width, height, y_label)
    else:
        height = height or HEIGHT
        drawn = _vertical(bars, width, height, x_label, y_label)
    keys = [Key(number, name, bars.colours[number]) for number, name in enumerate(series)]
    return figure(
        drawn, title=title, width=width, height=height, legend=drawing.legend(keys), note=note, classes="bars"
    )


@dataclass(frozen=True)
class _Bars:
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    errors: Mapping[str, Sequence[tuple[float, float] | None]]
    labels: Mapping[str, Sequence[str]]
    one_each: bool
    colours: Sequence[int]

    @property
    def abreast(self) -> int:
        """How many bars stand side by side in a group."""
        return 1 if self.one_each else max(len(self.series), 1)

    def offset(self, number: int) -> float:
        """Where the bar of a series stands in its group, in bars from the middle."""
        return 0.0 if self.one_each else number - (len(self.series) - 1) / 2

    @property
    def range(self) -> tuple[float, float]:
        values = [value for row in self.series.values() for value in row if value is not None]
        values += [bound for row in self.errors.values() for pair in row if pair for bound in pair]
        return padded(values, zero=True)

    def error(self, name: str, group: int) -> tuple[float, float] | None:
        return self.errors[name][group] if name in self.errors else None

    def words(self, name: str, group: int) -> str:
        return self.labels[name][group] if name in self.labels else format_number(self.series[name][group])

    def group(self, group: int) -> str:
        return ", ".join(self.groups[group].split("\n"))

    def tip(self, name: str, group: int) -> str:
        error = self.error(name, group)
        interval = f" ({format_number(error[0])} to {format_number(error[1])})" if error else ""
        return f"{name}, {self.group(group)}: {self.words(name, group)}{interval}"


def _vertical(bars: _Bars, width: float, height: float, x_label: str, y_label: str) -> Markup:
    count = max(len(bars.groups), 1)
    more = _LINE * max((words.count("\n") for words in bars.groups), default=0)
    area = drawing.plot((0, count), bars.range, width=width, height=height, x_label=x_label, y_label=y_label,
                        bottom=more)  # fmt: skip
    slot = (area.right - area.left) / count
    thick = min(0.78 * slot / bars.abreast, 46)
    parts = [drawing.axes(area, x_label=x_label, y_label=y_label, x_ticks=False)]
    for number, name in enumerate(bars.series):
        shapes: list[Markup | None] = []
        for group, value in enumerate(bars.series[name]):
            if value is None or not drawable(value):
                continue
            middle = area.left + slot * (group + 0.5) + thick * bars.offset(number)
            shapes.append(_upright(area, middle, thick, value, bars, name, group))
            shapes.append(_whisker(area, middle, thick, bars.error(name, group)))
        parts.append(_bar_group(shapes, number, name, bars.colours[number]))
    for group, words in enumerate(bars.groups):
        for line, part in enumerate(words.split("\n")):
            at = (area.left + slot * (group + 0.5), area.bottom + 17 + _LINE * line)
            parts.append(_group_name(*at, part, slot, "tick" if line == 0 else "tick small"))
    return join(parts)


def _upright(area: Plot, middle: float, thick: float, value: float, bars: _Bars, name: str, group: int) -> Markup:
    at, base = area.y(value), area.y(max(area.y.low, 0.0))
    return element("rect", element("title", bars.tip(name, group)), class_="bar", x=middle - 0.46 * thick,
                   y=min(at, base), width=0.92 * thick, height=max(abs(base - at), 0.5), rx=1.5,
                   data_x=bars.group(group), data_y=_with_error(bars, name, group))  # fmt: skip


def _with_error(bars: _Bars, name: str, group: int) -> str:
    error = bars.error(name, group)
    words = bars.words(name, group)
    return f"{words}  [{format_number(error[0])}, {format_number(error[1])}]" if error else words


def _whisker(area: Plot, middle: float, thick: float, error: tuple[float, float] | None) -> Markup | None:
    if error is None or not all(drawable(bound) for bound in error):
        return None
    low, high, half = area.y(error[0]), area.y(error[1]), min(0.22 * thick, 5)
    d = (f"M{middle:.1f} {low:.1f}V{high:.1f}M{middle - half:.1f} {low:.1f}h{2 * half:.1f}"
         f"M{middle - half:.1f} {high:.1f}h{2 * half:.1f}")  # fmt: skip
    return element("path", class_="whisker", d=d)


def _bar_group(shapes: Sequence[Markup | None], number: int, name: str, colour: int) -> Markup:
    return element("g", *shapes, class_=f"series c{colour % NUM_COLOURS}", data_series=number, data_name=name)


def _group_name(x: float, y: float, words: str, room: float, classes: str = "tick") -> Markup:
    fitting = max(int(room / 7.4), 2)
    shown = words if len(words) <= fitting else words[: fitting - 1] + "…"
    title = element("title", words) if shown != words else None
    return element("text", shown, title, x=float(x), y=float(y), text_anchor="middle", class_=classes)


def _horizontal(bars: _Bars, width: float, height: float, y_label: str) -> Markup:
    left = min(16 + 8 * max((len(group) for group in bars.groups), default=0), 0.42 * width)
    ends = 8 * max((len(bars.words(name, g)) for name in bars.series for g in range(len(bars.groups))), default=0) + 6
    low, high = bars.range
    area = Plot(
        Scale(low, high, left, width - ends), Scale(0, 1, height - 26 - (18 if y_label else 0), 6), width, height
    )
    slot = (area.bottom - area.top) / max(len(bars.groups), 1)
    thick = min(0.74 * slot / bars.abreast, 22)
    parts = [_upright_grid(area, y_label)]
    for number, name in enumerate(bars.series):
        shapes: list[Markup] = []
        for group, value in enumerate(bars.series[name]):
            if value is not None and drawable(value):
                middle = area.top + slot * (group + 0.5) + thick * bars.offset(number)
                shapes += _lying(area, middle, thick, value, bars, name, group)
        parts.append(_bar_group(shapes, number, name, bars.colours[number]))
    for group, words in enumerate(bars.groups):
        fitting = int(left / 7)
        shown = words if len(words) <= fitting else words[: fitting - 1] + "…"
        parts.append(
            drawing.text(left - 8, area.top + slot * (group + 0.5), shown, anchor="end", classes="tick middle")
        )
    return join(parts)


def _lying(area: Plot, middle: float, thick: float, value: float, bars: _Bars, name: str, group: int) -> list[Markup]:
    base, at = area.x(max(area.x.low, 0.0)), area.x(value)
    bar = element("rect", element("title", bars.tip(name, group)), class_="bar", x=min(base, at),
                  y=middle - 0.46 * thick, width=max(abs(at - base), 0.8), height=0.92 * thick, rx=1.5,
                  data_x=bars.group(group), data_y=_with_error(bars, name, group))  # fmt: skip
    words = drawing.text(max(at, base) + 5, middle, bars.words(name, group), classes="value middle")
    return [bar, words]


def _upright_grid(area: Plot, label: str) -> Markup:
    parts = []
    shown = area.x.ticks(drawing.tick_count(area.x))
    for tick, name in zip(shown, format_ticks(shown), strict=True):
        at = area.x(tick)
        parts.append(element("line", class_="grid-line", x1=at, x2=at, y1=area.top, y2=area.bottom))
        parts.append(drawing.text(at, area.bottom + 17, name, anchor="middle", classes="tick"))
    return join([*parts, drawing.axis_names(area, label, "")])


def scatter_chart(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    colour_label: str = "",
    width: float = WIDTH,
    height: float = HEIGHT,
    note: str = "",
) -> Markup:
    """Points, coloured by ``colour_value`` along the sequential scale where they have one; marked ones are ringed."""
    fitting = [p for p in points if drawable(p.x, log=log_x) and drawable(p.y, log=log_y)]
    x_range = padded([point.x for point in fitting], log=log_x)
    y_range = padded([point.y for point in fitting], log=log_y)
    area = drawing.plot(x_range, y_range, width=width, height=height, log_x=log_x, log_y=log_y, x_label=x_label,
                        y_label=y_label)  # fmt: skip
    known = [point.colour_value for point in fitting if point.colour_value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    dots = [_scattered(area, point, low, high) for point in sorted(fitting, key=lambda point: point.marked)]
    legend = drawing.ramp_legend(format_number(low), format_number(high), colour_label) if len(set(known)) > 1 else None
    return figure(join([drawing.axes(area, x_label=x_label, y_label=y_label), element("g", *dots, class_="series c0")]),
                  title=title, width=width, height=height, note=note, classes="points", legend=legend,
                  x_label=x_label, y_label=y_label)  # fmt: skip


def _scattered(area: Plot, point: Point, low: float, high: float) -> Markup:
    share = None if point.colour_value is None else 0.5 if high == low else (point.colour_value - low) / (high - low)
    words = f"{point.label}: {format_number(point.x)}, {format_number(point.y)}".removeprefix(": ")
    return element("circle", element("title", words), cx=area.x(point.x), cy=area.y(point.y),
                   r=6 if point.marked else 4.5, class_="dot marked" if point.marked else "dot",
                   style=None if share is None else f"fill:{drawing.ramp(share)}",
                   data_x=format_number(point.x), data_y=format_number(point.y), data_label=point.label or None,
                   data_link=point.link or None)  # fmt: skip


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    width: float = WIDTH,
    cell_height: float = 30,
    low: float | None = None,
    high: float | None = None,
    note: str = "",
) -> Markup:
    """A table of colours, ``values[row][column]``, from the background's at ``low`` to the accent at ``high`` (the
    least and the largest where not given). Numbers are written into the cells where they fit."""
    known = [value for row in values for value in row if value is not None and drawable(value)]
    bounds = (min(known, default=0.0) if low is None else low, max(known, default=1.0) if high is None else high)
    left = min(12 + 7.6 * max((len(name) for name in rows), default=0), 0.4 * width)
    top = 22 if y_label else 6
    height = top + cell_height * len(rows) + 24 + (18 if x_label else 0)
    area = Plot(
        Scale(0, max(len(columns), 1), left, width - 6), Scale(0, max(len(rows), 1), top, height), width, height
    )
    slot = (width - 6 - left) / max(len(columns), 1)
    parts: list[Markup] = []
    for i, name in enumerate(rows):
        middle = top + cell_height * (i + 0.5)
        parts.append(drawing.text(left - 7, middle, name, anchor="end", classes="tick middle"))
        for j, value in enumerate(values[i]):
            if value is not None and drawable(value):
                place = (left + slot * j, top + cell_height * i, slot, cell_height)
                parts.append(_heat_cell(place, value, bounds, name, columns[j]))
    bottom = top + cell_height * len(rows)
    parts += [_group_name(left + slot * (j + 0.5), bottom + 17, name, slot) for j, name in enumerate(columns)]
    parts.append(drawing.axis_names(area, x_label, y_label))
    return figure(join(parts), title=title, width=width, height=height, note=note, classes="heat")


def _heat_cell(
    place: tuple[float, float, float, float], value: float, bounds: tuple[float, float], row: str, column: str
) -> Markup:
    x, y, width, height = place
    low, high = bounds
    share = 0.5 if high == low else min(max((value - low) / (high - low), 0.0), 1.0)
    number = format_number(value)
    rect = element("rect", element("title", f"{row}, {column}: {number}"), class_="cell", x=x + 1, y=y + 1,
                   width=width - 2, height=height - 2, rx=2, data_x=column, data_y=number, data_label=row,
                   style=f"fill:color-mix(in oklab, var(--accent) {8 + 84 * share:.0f}%, var(--surface))")  # fmt: skip
    fits = width > 7.5 * len(number)
    words = drawing.text(x + width / 2, y + height / 2, number, anchor="middle",
                         classes="cell-value middle strong" if share > 0.55 else "cell-value middle")  # fmt: skip
    return join([rect, words if fits else None])


def histogram(
    values: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    bins: int = 24,
    edges: Sequence[float] | None = None,
    share: bool = False,
    width: float = WIDTH,
    height: float = HEIGHT,
    note: str = "",
) -> Markup:
    """How often values fall where, one outline per series. With ``edges`` the values are counts already, one fewer than
    edges; ``share`` draws each series as shares of its own sum."""
    named = values if isinstance(values, Mapping) else {"": values}
    counts, edges = (dict(named), list(edges)) if edges is not None else _counted(named, bins)
    if share:
        counts = {name: [value / (sum(row) or 1) for value in row] for name, row in counts.items()}
    top = [value for row in counts.values() for value in row]
    area = drawing.plot((edges[0], edges[-1]), padded(top, zero=True), width=width, height=height, x_label=x_label,
                        y_label=y_label)  # fmt: skip
    parts = [_steps(area, number, name, counts[name], edges) for number, name in enumerate(counts)]
    keys = [Key(number, name, number) for number, name in enumerate(counts)]
    return figure(join([drawing.axes(area, x_label=x_label, y_label=y_label), *parts]), title=title, width=width,
                  height=height, note=note, classes="bins", legend=drawing.legend(keys))  # fmt: skip


def _counted(named: Mapping[str, Sequence[float]], bins: int) -> tuple[dict[str, Sequence[float]], list[float]]:
    import numpy as np

    arrays = {name: np.asarray(row, dtype=float) for name, row in named.items()}
    arrays = {name: row[np.isfinite(row)] for name, row in arrays.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=bins)
    return {name: np.histogram(row, edges)[0].tolist() for name, row in arrays.items()}, edges.tolist()


def _steps(area: Plot, number: int, name: str, counts: Sequence[float], edges: Sequence[float]) -> Markup:
    outline: list[tuple[float, float] | None] = [(area.x(edges[0]), area.bottom)]
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        outline += [(area.x(left), area.y(count)), (area.x(right), area.y(count))]
    outline.append((area.x(edges[-1]), area.bottom))
    d = drawing.path(outline)
    spots = []
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        where = f"{format_number(left)} to {format_number(right)}"
        tip = element("title", f"{name}, {where}: {format_number(count)}".removeprefix(", "))
        spots.append(element("rect", tip, class_="spot", x=area.x(left), y=area.top, width=area.x(right) - area.x(left),
                             height=area.bottom - area.top, data_x=where, data_y=format_number(count)))  # fmt: skip
    return element("g", element("path", d=d, class_="area"), element("path", d=d), *spots,
                   class_=f"series c{number % NUM_COLOURS}", data_series=number, data_name=name or "count")  # fmt: skip
