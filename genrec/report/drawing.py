"""What all charts share: the plot area with its axes, the figure around it, the legend, colours.

Colours are CSS classes and variables of ``page.css``, so that a chart follows the page into the dark and onto paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from genrec.report.html import Markup, element, join
from genrec.report.scales import Scale, format_ticks

WIDTH, HEIGHT = 520, 270
NUM_COLOURS = 8
_CHAR = 7.6  # width of a tick label's character in the larger type of a phone
_TOP, _RIGHT, _BOTTOM, _LABEL_ROOM = 12, 14, 24, 18


@dataclass(frozen=True)
class Plot:
    """A plot area inside a drawing ``width`` x ``height``: two scales in the drawing's units."""

    x: Scale
    y: Scale
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the number of its series, its name and how it is drawn."""

    series: int
    name: str
    colour: int
    dashed: bool = False


def plot(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    log_x: bool = False,
    log_y: bool = False,
    x_label: str = "",
    y_label: str = "",
    left: float | None = None,
    top: float = 0,
    bottom: float = 0,
) -> Plot:
    """A plot area that leaves room for its labels; ``left`` is that of the tick labels where it is known, ``top`` and
    ``bottom`` more room above and below."""
    if left is None:
        names = format_ticks(Scale(*y_range, 0, 1, log_y).ticks(5))
        left = 10 + _CHAR * max((len(name) for name in names), default=1)
    high = _TOP + top + (_LABEL_ROOM if y_label else 0)
    low = height - _BOTTOM - bottom - (_LABEL_ROOM if x_label else 0)
    return Plot(Scale(*x_range, left, width - _RIGHT, log_x), Scale(*y_range, low, high, log_y), width, height)


def tick_count(scale: Scale) -> int:
    """How many tick labels fit beside each other on a horizontal scale."""
    longest = max(map(len, format_ticks(scale.ticks(6))), default=1)
    return max(2, min(8, int(abs(scale.end - scale.start) / (_CHAR * longest + 22))))


def axes(
    area: Plot,
    *,
    x_label: str = "",
    y_label: str = "",
    x_ticks: bool = True,
    y_ticks: bool = True,
    whole: bool = False,
) -> Markup:
    """Grid lines, tick labels and the names of both axes; the name of the vertical one stands above it. With ``whole``
    the horizontal axis has ticks at whole numbers only."""
    parts: list[Markup] = []
    levels = area.y.ticks(5) if y_ticks else []
    for tick, name in zip(levels, format_ticks(levels), strict=True):
        at = area.y(tick)
        parts.append(element("line", class_="grid-line", x1=area.left, x2=area.right, y1=at, y2=at))
        parts.append(text(area.left - 7, at, name, anchor="end", classes="tick middle"))
    parts.append(element("line", class_="axis", x1=area.left, x2=area.right, y1=area.bottom, y2=area.bottom))
    shown = [tick for tick in area.x.ticks(tick_count(area.x)) if not whole or tick.is_integer()] if x_ticks else []
    for tick, name in zip(shown, format_ticks(shown), strict=True):
        at = area.x(tick)
        parts.append(element("line", class_="axis", x1=at, x2=at, y1=area.bottom, y2=area.bottom + 4))
        parts.append(text(at, area.bottom + 17, name, anchor="middle", classes="tick"))
    return join([*parts, axis_names(area, x_label, y_label)])


def axis_names(area: Plot, x_label: str, y_label: str) -> Markup:
    parts: list[Markup] = []
    if y_label:
        parts.append(text(2, 12, y_label, classes="axis-name"))
    if x_label:
        middle = (area.left + area.right) / 2
        parts.append(text(middle, area.height - 5, x_label, anchor="middle", classes="axis-name"))
    return join(parts)


def text(x: float, y: float, content: object, *, anchor: str | None = None, classes: str = "") -> Markup:
    return element("text", content, x=float(x), y=float(y), text_anchor=anchor, class_=classes or None)


def path(points: Sequence[tuple[float, float] | None], *, close: bool = False) -> str:
    """The ``d`` of a line through the points; None interrupts it."""
    words: list[str] = []
    pen_down = False
    for point in points:
        if point is not None:
            words.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    return "".join(words) + ("Z" if close and words else "")


def drawable(value: float | None, *, log: bool = False) -> bool:
    return value is not None and math.isfinite(value) and (value > 0 or not log)


def figure(
    drawing: Markup,
    *,
    title: str,
    width: float = WIDTH,
    height: float = HEIGHT,
    legend: Markup | None = None,
    note: str = "",
    classes: str = "",
    x_label: str = "",
    y_label: str = "",
) -> Markup:
    """The drawing as a figure with its title above, a legend, and a remark below; wide drawings take a whole row."""
    svg = element(
        "svg",
        drawing,
        class_=f"chart {classes}".strip(),
        viewBox=f"0 0 {width:g} {height:g}",
        width="100%",
        role="img",
        aria_label=title,
        data_x=x_label or None,
        data_y=y_label or None,
        xmlns="http://www.w3.org/2000/svg",
    )
    return element(
        "figure",
        element("figcaption", title),
        legend,
        svg,
        element("p", note, class_="note") if note else None,
        class_="wide" if width > 1.3 * WIDTH else None,
        style=f"max-width:{1.35 * width:.0f}px",
    )


def legend(keys: Sequence[Key]) -> Markup | None:
    """Names beside their colours; None where there is only one."""
    if len(keys) < 2:
        return None
    entries = [
        element(
            "li",
            element("span", class_="swatch dashed" if key.dashed else "swatch"),
            key.name,
            class_=f"c{key.colour % NUM_COLOURS}",
            data_series=key.series,
        )
        for key in keys
    ]
    return element("ul", *entries, class_="legend")


def ramp(share: float) -> str:
    """A CSS colour between the ends of the sequential scale; ``share`` 0 is its low end, 1 its high end."""
    share = min(max(share, 0.0), 1.0)
    low, high, at = ("a", "b", 2 * share) if share < 0.5 else ("b", "c", 2 * share - 1)
    return f"color-mix(in oklab, var(--ramp-{high}) {100 * at:.0f}%, var(--ramp-{low}))"


def ramp_legend(low: str, high: str, name: str) -> Markup:
    """The sequential scale as a bar between its ends."""
    return element("div", element("span", name, class_="name"), element("span", low), element("span", class_="ramp"),
                   element("span", high), class_="legend ramp-legend")  # fmt: skip
