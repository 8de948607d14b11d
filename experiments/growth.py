"""Cost against size as a picture: lines on logarithmic scales, one panel for each kind of cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from genrec.report.scales import Scale, format_tick, log_ticks

WIDTH, HEIGHT, GAP, MARGIN, LABELS, NAMES = 250, 200, 40, 16, 56, 120
LINE = HEIGHT + 90  # of panels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280", "#8c564b", "#6a51a3", "#b8860b")

STYLE = """
svg { font: 11.5px system-ui, -apple-system, "Segoe UI", sans-serif; }
.paper { fill: #ffffff; } .title { font-weight: 600; } text { fill: #24292f; } .quiet { fill: #6b7280; }
.grid { stroke: #e5e7eb; } .limit { stroke: #6b7280; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181f; } text { fill: #e6e8eb; } .quiet { fill: #9aa3af; } .grid { stroke: #2b323c; }
  .limit { stroke: #9aa3af; }
}
""".strip()


@dataclass(frozen=True)
class Line:
    """``points`` (size, cost), both above 0; ``broken`` says why there is no further one."""

    name: str
    points: Sequence[tuple[float, float]]
    broken: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines of one kind of cost, written by ``unit``; ``limit`` is a level that is drawn across."""

    title: str
    lines: Sequence[Line]
    unit: Callable[[float], str] = format_tick
    limit: float | None = None


def draw(panels: Sequence[Panel], *, title: str, x_label: str, columns: int = 3) -> str:
    """The SVG, with so many panels beside each other; it stands alone and follows the reader's light or dark scheme.
    Panels without a point are left out."""
    panels = [panel for panel in panels if any(line.points for line in panel.lines)]
    columns = max(1, min(columns, len(panels)))
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    step = LABELS + WIDTH + NAMES + GAP
    width, height = 2 * MARGIN + columns * step - GAP, -(-len(panels) // columns) * LINE
    parts = [
        _panel(panel, MARGIN + place % columns * step, place // columns * LINE, x_label, colours)
        for place, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<style>\n{STYLE}\n</style>\n'
        f'<rect class="paper" width="{width}" height="{height}" rx="6"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(panel: Panel, left: float, above: float, x_label: str, colours: Mapping[str, str]) -> str:
    points = [point for line in panel.lines for point in line.points]
    sizes, costs = [x for x, _ in points], [y for _, y in points]
    costs += [] if panel.limit is None else [panel.limit]
    begin, top, bottom = left + LABELS, above + 44, above + 44 + HEIGHT
    across = Scale(min(sizes), max(sizes) * (1 if len(set(sizes)) > 1 else 2), begin, begin + WIDTH, log=True)
    up = Scale(min(costs) / 1.3, max(costs) * 1.3, bottom, top, log=True)
    parts = [_text(left, above + 26, panel.title, "title")]
    for tick in log_ticks(up.low, up.high, 5):
        parts.append(f'<path class="grid" d="M{begin:g} {up(tick):.1f}h{WIDTH}"/>')
        parts.append(_text(begin - 6, up(tick) + 4, panel.unit(tick), "quiet", "end"))
    for size in sorted(set(sizes)):
        parts.append(f'<path class="grid" d="M{across(size):.1f} {top}V{bottom}"/>')
        parts.append(_text(across(size), bottom + 16, _count(size), "quiet", "middle"))
    parts.append(_text(begin + WIDTH / 2, bottom + 33, x_label, "quiet", "middle"))
    if panel.limit is not None:
        parts.append(f'<path class="limit" d="M{begin:g} {up(panel.limit):.1f}h{WIDTH}"/>')
        parts.append(_text(begin + WIDTH + 6, up(panel.limit) + 4, f"limit {panel.unit(panel.limit)}", "quiet"))
    heights = _apart([up(line.points[-1][1]) for line in panel.lines])
    for line, height in zip(panel.lines, heights, strict=True):
        parts += _line(line, across, up, height, colours[line.name], begin + WIDTH + 6, panel.unit)
    return "\n".join(parts)


def _line(
    line: Line, across: Scale, up: Scale, height: float, colour: str, right: float, unit: Callable[[float], str]
) -> list[str]:
    places = [(across(x), up(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for (x, y), (size, cost) in zip(places, line.points, strict=True):
        tip = escape(f"{line.name}, {_count(size)}: {unit(cost)}")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{tip}</title></circle>')
    if line.broken:
        x, y = places[-1]
        parts.append(f'<path d="M{x + 5:.1f} {y - 10:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2"/>')
    label = line.name + (f" ({line.broken})" if line.broken else "")
    parts.append(f'<text x="{right:g}" y="{height + 4:.1f}" style="fill: {colour}">{escape(label)}</text>')
    return parts


def seconds(value: float) -> str:
    """Seconds as they stand on an axis."""
    return f"{value:,.3g} s" if value < 1000 else f"{value:,.0f} s"


def _apart(heights: Sequence[float], least: float = 14) -> list[float]:
    """Heights of names that do not cover each other, as near to the given ones as going down allows."""
    moved = list(heights)
    last = float("-inf")
    for place in sorted(range(len(heights)), key=lambda place: heights[place]):
        last = moved[place] = max(heights[place], last + least)
    return moved


def _count(number: float) -> str:
    """10000 as "10 k", 50 million as "50 M"."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}{place}>{escape(text)}</text>'
