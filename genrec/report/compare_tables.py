"""A comparison for the terminal: what is better, by how much, where, and what was changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from genrec.report.bootstrap import Interval
from genrec.report.comparison import BETTER, EQUAL, UNCLEAR, WORSE, Comparison, Difference, Segment
from genrec.report.scales import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

MAX_SETTINGS = 20
_STYLES = {BETTER: "green", WORSE: "red", UNCLEAR: "dim", EQUAL: "dim"}
_LONGEST, _LONGEST_HEAD = 40, 16
_WIDE = 118


def print_comparison(found: Comparison, console: Console) -> None:
    """Prints the tables of a comparison and, last, one sentence per side."""
    if headings(found) != [side.name for side in found.sides]:
        console.print(_legend(found))
    for side in range(1, len(found.sides)):
        console.print(difference_table(found, side, narrow=console.width < _WIDE))
        if found.segments:
            console.print(segment_table(found, side))
    if found.settings:
        console.print(settings_table(found))
    if found.costs:
        console.print(cost_table(found))
    for side in range(1, len(found.sides)):
        console.print(summary(found, side), highlight=False, markup=False)
    for note in found.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def difference_table(found: Comparison, side: int, *, narrow: bool = False) -> Table:
    """The metrics of a side beside those of the reference; ``narrow`` leaves out what can be computed from the rest."""
    title = f"{found.sides[side].name} against {found.reference.name} on {found.reference.run.data}: "
    table = _table(f"{title}{found.size:,} test {found.unit}{_seeds_told(found, side)}")
    table.add_column("metric", no_wrap=True)
    heads = headings(found)
    columns = [heads[0], heads[side], "difference", f"{confidence(found)} interval"]
    for name in (*columns, "p") if narrow else (*columns, "relative", "p", "won / lost"):
        table.add_column(escape(name), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in found.differences:
        if one.side == side:
            table.add_row(*_difference_row(found, one, narrow))
    return table


def _difference_row(found: Comparison, one: Difference, narrow: bool) -> list[str]:
    digits = decimals(one.interval)
    seeds = found.seed_values[one.metric]
    row = [escape(one.metric), with_spread(one.reference_value, seeds[0]), with_spread(one.value, seeds[one.side])]
    row += [signed(one.over_users.value, digits), bounds(one.interval, digits)]
    won = "-" if one.wins is None else f"{one.wins:,} / {one.losses:,}"
    row += [p_text(one.p_value)] if narrow else [percent(one.relative), p_text(one.p_value), won]
    return [*row, f"[{_STYLES[one.verdict]}]{one.verdict}[/]"]


def _seeds_told(found: Comparison, side: int) -> str:
    """How many seeds each of the two has, where one has several; their intervals allow for seeds."""
    counts = [len(found.sides[place].runs) for place in (0, side)]
    if max(counts) == 1:
        return ""
    return f", {counts[0]} and {counts[1]} seeds" if counts[0] != counts[1] else f", {counts[0]} seeds each"


def segment_table(found: Comparison, side: int) -> Table:
    """The first metric among the users of each quarter."""
    table = _table(f"{found.primary} by segment")
    table.add_column("segment")
    heads = headings(found)
    for name in (found.unit, heads[0], heads[side], "difference", f"{confidence(found)} interval"):
        table.add_column(escape(name), justify="right")
    table.add_column("verdict")
    rows = [one for one in found.segments if one.side == side and one.metric == found.primary]
    for place, one in enumerate(rows):
        last = place + 1 == len(rows) or rows[place + 1].trait != one.trait
        table.add_row(*_segment_row(one), end_section=last and place + 1 < len(rows))
    return table


def _segment_row(one: Segment) -> list[str]:
    digits = decimals(one.over_users)
    return [
        f"{one.trait} {one.name}", f"{one.size:,}", f"{one.reference_value:.4f}", f"{one.value:.4f}",
        signed(one.over_users.value, digits), bounds(one.over_users, digits),
        f"[{_STYLES[one.verdict]}]{one.verdict}[/]",
    ]  # fmt: skip


def settings_table(found: Comparison) -> Table:
    """The keys of the config that differ, a column per side."""
    names = list(found.settings)
    more = f", the first {MAX_SETTINGS} of {len(names)}" if len(names) > MAX_SETTINGS else ""
    table = _table(f"what was configured differently{more}")
    for name in ("key", *headings(found)):
        table.add_column(escape(name), overflow="fold")
    for name in names[:MAX_SETTINGS]:
        table.add_row(escape(name), *(escape(shortened(setting_text(value))) for value in found.settings[name]))
    return table


def cost_table(found: Comparison) -> Table:
    table = _table("what it took")
    table.add_column("")
    for name in headings(found):
        table.add_column(escape(name), justify="right")
    for name, row in found.costs.items():
        label, texts = cost_texts(name, row)
        table.add_row(label, *texts)
    return table


def summary(found: Comparison, side: int) -> str:
    """What was found, in one sentence: ``sasrec is better than tiger in recall@10: +0.0120 ...``."""
    one = found.of(found.primary, side)
    name, reference = found.sides[side].name, found.reference.name
    if one.verdict == EQUAL:
        alike = one.ties is not None and not one.wins and not one.losses
        each = f", for every {found.unit.removesuffix('s')}" if alike else ""
        return f"{name} and {reference} are equal in {one.metric}{each}."
    words = {BETTER: "is better than", WORSE: "is worse than", UNCLEAR: "cannot be told from"}[one.verdict]
    digits = decimals(one.interval)
    amount = f"{signed(one.over_users.value, digits)} ({percent(one.relative)})"
    clear = [d for d in found.differences if d.side == side and d.verdict == one.verdict]
    share = f"; {len(clear)} of {len(found.metrics)} metrics say so" if len(found.metrics) > 1 else ""
    return (
        f"{name} {words} {reference} in {one.metric}: {amount}, {confidence(found)} interval "
        f"{bounds(one.interval, digits)}{share}."
    )


def headings(found: Comparison) -> list[str]:
    """The sides as heads of columns: their names where these are short, else A, B, ..."""
    names = [side.name for side in found.sides]
    return names if max(map(len, names)) <= _LONGEST_HEAD else [chr(ord("A") + place) for place in range(len(names))]


def confidence(found: Comparison) -> str:
    return f"{100 * found.options.confidence:g} %"


def decimals(one: Interval) -> int:
    """How many decimals the interval deserves: two digits of its half width, at least four decimals."""
    half = (one.high - one.low) / 2
    return min(8, max(4, 1 - math.floor(math.log10(half)))) if half > 0 and math.isfinite(half) else 4


def signed(value: float, digits: int = 4) -> str:
    return "0" if value == 0 else f"{value:+.{digits}f}"


def bounds(one: Interval, digits: int = 4) -> str:
    return f"{signed(one.low, digits)} to {signed(one.high, digits)}"


def percent(share: float | None) -> str:
    """A share as a signed percentage; several times as much needs no decimals."""
    if share is not None and abs(share) >= 1:
        return f"{100 * share:+.0f} %"
    return "-" if share is None else "0 %" if share == 0 else f"{100 * share:+.1f} %"


def p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def with_spread(value: float, seeds: Sequence[float]) -> str:
    """A mean, and the standard deviation over seeds where there are several."""
    return f"{value:.4f} ± {spread(seeds):.4f}" if len(seeds) > 1 else f"{value:.4f}"


def spread(seeds: Sequence[float]) -> float:
    """The standard deviation of the values of several seeds; 0 for one."""
    mean = sum(seeds) / len(seeds)
    return math.sqrt(sum((value - mean) ** 2 for value in seeds) / (len(seeds) - 1)) if len(seeds) > 1 else 0.0


def setting_text(value: Any) -> str:
    """A value of the config as on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def cost_texts(name: str, row: Sequence[float | None]) -> tuple[str, list[str]]:
    """A row of costs with their units: the name without its unit, then a text per side."""
    if name.startswith("seconds "):
        return f"time {name.removeprefix('seconds ')}", [
            "-" if value is None else format_seconds(value) for value in row
        ]
    if "memory" in name:
        return name, ["-" if value is None else format_bytes(value) for value in row]
    return name, ["-" if value is None else f"{value:,.0f}" for value in row]


def _legend(found: Comparison) -> Table:
    table = Table.grid(padding=(0, 2))
    for letter, side in zip(headings(found), found.sides, strict=True):
        table.add_row(f"  {letter}", escape(side.name), escape(side.given))
    return table


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, min_width=min(len(title), 100))
