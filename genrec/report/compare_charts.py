"""Pictures of differences: intervals around zero, one below the other, and bars of wins against losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec.report import drawing
from genrec.report.drawing import WIDTH, Key, Plot, figure
from genrec.report.html import Markup, element, join
from genrec.report.scales import Scale, format_tick, padded

_ROW, _LANE, _GAP = 12, 16, 18
_CHAR = 7.8


@dataclass(frozen=True)
class Mark:
    """A difference with its interval in row ``row``; ``outer`` is a wider interval around it, drawn thin; ``text`` is
    what the pointer reads."""

    row: str
    value: float
    low: float
    high: float
    text: str
    outer: tuple[float, float] | None = None
    clear: bool = True


@dataclass(frozen=True)
class Tally:
    """How many units a side won and lost in row ``row``."""

    row: str
    wins: int
    losses: int


def forest(series: Mapping[str, Sequence[Mark]], *, title: str, x_label: str, note: str = "", first: int = 1) -> Markup:
    """Intervals as lines with their value as a dot, hollow where they hold zero; a lane per series in each row.

    ``first`` is the number of the first series' colour.
    """
    rows = list(dict.fromkeys(mark.row for marks in series.values() for mark in marks))
    ends = [
        end for marks in series.values() for mark in marks for end in (mark.low, mark.high, *(mark.outer or ()), 0.0)
    ]
    area = _area(rows, padded(ends, share=0.06), max(_ROW, _LANE * len(series)) + _GAP)
    parts = [_frame(area, rows, x_label)]
    for number, (name, marks) in enumerate(series.items()):
        shift = _LANE * (number - (len(series) - 1) / 2)
        drawn = [_mark(area, _middle(area, rows.index(mark.row), len(rows)) + shift, mark) for mark in marks]
        parts.append(_series(drawn, number, name, first))
    keys = [Key(number, name, number + first) for number, name in enumerate(series)]
    return figure(
        join(parts), title=title, height=area.height, legend=drawing.legend(keys), note=note, classes="forest"
    )


def tallies(
    series: Mapping[str, Sequence[Tally]], *, title: str, x_label: str, unit: str, note: str = "", first: int = 1
) -> Markup:
    """Bars to the right for wins and, paler, to the left for losses, on one scale."""
    rows = list(dict.fromkeys(tally.row for row in series.values() for tally in row))
    most = max((max(tally.wins, tally.losses) for row in series.values() for tally in row), default=1) or 1
    area = _area(rows, (-1.28 * most, 1.28 * most), max(_ROW, _LANE * len(series)) + _GAP)
    parts = [_frame(area, rows, x_label, ticks=False)]
    for number, (name, row) in enumerate(series.items()):
        shift = _LANE * (number - (len(series) - 1) / 2)
        drawn = [_tally(area, _middle(area, rows.index(one.row), len(rows)) + shift, one, unit) for one in row]
        parts.append(_series(drawn, number, name, first))
    keys = [Key(number, name, number + first) for number, name in enumerate(series)]
    return figure(join(parts), title=title, height=area.height, legend=drawing.legend(keys), note=note, classes="tally")


def _area(rows: Sequence[str], x_range: tuple[float, float], slot: float) -> Plot:
    left = min(14 + _CHAR * max((len(row) for row in rows), default=0), 0.45 * WIDTH)
    bottom = 8 + slot * max(len(rows), 1)
    return Plot(Scale(*x_range, left, WIDTH - 16), Scale(0, 1, bottom, 8), WIDTH, bottom + 44)


def _middle(area: Plot, place: int, count: int) -> float:
    return area.top + (area.bottom - area.top) * (place + 0.5) / count


def _frame(area: Plot, rows: Sequence[str], x_label: str, *, ticks: bool = True) -> Markup:
    """Grid, the line of zero, the names of the rows and of the axis."""
    parts: list[Markup] = []
    for tick in area.x.ticks(min(drawing.tick_count(area.x), 5)) if ticks else []:
        at = area.x(tick)
        parts.append(element("line", class_="grid-line", x1=at, x2=at, y1=area.top, y2=area.bottom))
        words = format_tick(tick)
        parts.append(
            drawing.text(at, area.bottom + 17, f"+{words}" if tick > 0 else words, anchor="middle", classes="tick")
        )
    zero = area.x(0.0)
    parts.append(element("line", class_="zero", x1=zero, x2=zero, y1=area.top - 4, y2=area.bottom + 4))
    fitting = max(int((area.left - 8) / 7), 3)
    for place, row in enumerate(rows):
        shown = row if len(row) <= fitting else row[: fitting - 1] + "…"
        middle = _middle(area, place, len(rows))
        parts.append(drawing.text(area.left - 8, middle, shown, anchor="end", classes="tick middle"))
    return join([*parts, drawing.axis_names(area, x_label, "")])


def _mark(area: Plot, middle: float, mark: Mark) -> Markup:
    outer = [_line(area, middle, *mark.outer, classes="thin")] if mark.outer else []
    dot = element("circle", cx=area.x(mark.value), cy=middle, r=4.5, class_=None if mark.clear else "hollow")
    spot = _spot(area, middle, mark.row, mark.text)
    return join([spot, *outer, _line(area, middle, mark.low, mark.high), dot])


def _spot(area: Plot, middle: float, row: str, words: str) -> Markup:
    """The lane of a mark, all of which shows its words to the pointer."""
    return element("rect", element("title", f"{row}: {words}"), class_="spot", x=area.left, y=middle - _LANE / 2,
                   width=area.right - area.left, height=_LANE, data_x=row, data_y=words)  # fmt: skip


def _line(area: Plot, middle: float, low: float, high: float, *, classes: str | None = None) -> Markup:
    cap = 0 if classes else 4
    d = f"M{area.x(low):.1f} {middle:.1f}H{area.x(high):.1f}"
    for end in (low, high) if cap else ():
        d += f"M{area.x(end):.1f} {middle - cap:.1f}v{2 * cap}"
    return element("path", d=d, class_=classes)


def _tally(area: Plot, middle: float, tally: Tally, unit: str) -> Markup:
    zero, thick = area.x(0.0), _LANE - 3
    parts = [_spot(area, middle, tally.row, f"{tally.wins:,} {unit} won, {tally.losses:,} lost")]
    for count, sign, classes in ((tally.wins, 1, "won"), (tally.losses, -1, "lost")):
        end = area.x(float(sign * count))
        parts.append(element("rect", class_=classes, x=min(zero, end), y=middle - thick / 2, height=thick, rx=1.5,
                             width=max(abs(end - zero), 0.5)))  # fmt: skip
        anchor = "start" if sign > 0 else "end"
        parts.append(drawing.text(end + 5 * sign, middle, f"{count:,}", anchor=anchor, classes="value middle"))
    return join(parts)


def _series(drawn: Sequence[Markup], number: int, name: str, first: int) -> Markup:
    colour = (number + first) % drawing.NUM_COLOURS
    return element("g", *drawn, class_=f"series c{colour}", data_series=number, data_name=name)
