"""Seconds and memory of each stage against the number of items, as a picture and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.big_catalogue.measure import DECODING, RUNS, Row
from experiments.growth import Line, Panel, seconds
from experiments.growth import draw as draw_panels
from genrec.report.scales import format_bytes

_MIB = 2**20
_LEAST_SECONDS = 0.05  # what is shorter is drawn there


def draw(rows: Sequence[Row]) -> str:
    """The SVG: for each run a panel of seconds and one of peak memory."""
    panels = []
    for name in [run.name for run in RUNS if any(row["run"] == run.name for row in rows)]:
        mine = [row for row in rows if row["run"] == name]
        panels.append(Panel(f"{name}: time", _lines(mine, "seconds"), seconds))
        panels.append(Panel(f"{name}: peak memory", _lines(mine, "peak_bytes"), format_bytes))
    title = "Seconds and peak memory of each stage against the number of items"
    return draw_panels(panels, title=title, x_label="items", columns=2)


def _lines(rows: Sequence[Row], column: str) -> list[Line]:
    found = []
    for stage in dict.fromkeys(row["stage"] for row in rows if row[column]):
        least = _LEAST_SECONDS if column == "seconds" and stage != DECODING else 1e-4
        own = sorted((int(row["items"]), float(row[column])) for row in rows if row["stage"] == stage and row[column])
        found.append(Line(stage, [(items, max(value, least)) for items, value in own]))
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row per run and stage, seconds and MiB for each number of items."""
    sizes = sorted({int(row["items"]) for row in rows})
    lines = [f"| run | stage | {' | '.join(f'{size:,} items' for size in sizes)} |", f"|{'---|' * (2 + len(sizes))}"]
    for run in RUNS:
        mine = [row for row in rows if row["run"] == run.name]
        for stage in dict.fromkeys(row["stage"] for row in mine):
            found = {int(row["items"]): row for row in mine if row["stage"] == stage}
            cells = [_cell(found[size]) if size in found else "" for size in sizes]
            lines.append(f"| {run.name} | {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    seconds = float(row["seconds"])
    shown = f"{1000 * seconds:,.0f} ms" if row["stage"] == DECODING else f"{seconds:,.1f} s"
    return shown + (f", {float(row['peak_bytes']) / _MIB:,.0f} MiB" if row["peak_bytes"] else "")
