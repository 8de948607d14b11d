"""A study as a picture: for each data set and protocol or label, a row per model with its seeds, mean and spread.

The SVG stands alone, so that a README can show it; its colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from experiments.plan import Plot
from experiments.results import MODEL, SEED, UNKNOWN, Group, Key, Layout, Row, figure, groups_of, panels_of, shown
from genrec.report.scales import Scale, padded

PANEL_WIDTH, GAP, ROW, HEAD, FOOT, MARGIN = 450, 26, 20, 34, 34, 16
LABELS, FIGURES = 162, 52  # widths left and right of the dots
CHARACTERS = 26  # of a name that fit

STYLE = """
svg { font: 11.5px system-ui, -apple-system, "Segoe UI", sans-serif; }
.paper { fill: #ffffff; } .title { font-weight: 600; } text { fill: #24292f; } .quiet { fill: #6b7280; }
.grid { stroke: #e5e7eb; } .spread { stroke: #0072b2; stroke-width: 2; } .mean { fill: #0072b2; }
.seed { fill: #0072b2; fill-opacity: .35; } .plain { fill: none; stroke: #6b7280; stroke-width: 1.6; }
.published { fill: none; stroke: #b45309; stroke-width: 1.6; }
.again { fill: #d55e00; } .spread.again { stroke: #d55e00; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181f; } text { fill: #e6e8eb; } .quiet { fill: #9aa3af; } .grid { stroke: #2b323c; }
  .spread { stroke: #56b4e9; } .mean, .seed { fill: #56b4e9; } .plain { stroke: #9aa3af; }
  .published { stroke: #f0b429; } .again { fill: #ff9f5a; } .spread.again { stroke: #ff9f5a; }
}
""".strip()


def draw(
    rows: Sequence[Row], layout: Layout, plot: Plot, published: Sequence[Row] = (), again: Sequence[Row] = ()
) -> str:
    """The SVG. ``published`` are rows of others' tables, ``again`` what was measured anew, drawn below each row."""
    placed = [row for row in published if UNKNOWN not in (row[name] for name in layout.shown)]
    wanted = [row for row in [*rows, *placed] if row[MODEL] not in plot.leave_out and row.get(plot.metric)]
    panels = list(panels_of(wanted, layout, plot.metric).items())
    renewed = groups_of(again, layout)
    columns = min(2, len(panels))
    height = top = MARGIN + 18
    parts: list[str] = []
    for start in range(0, len(panels), columns):
        line = panels[start : start + columns]
        for place, (panel, groups) in enumerate(line):
            left = MARGIN + place * (PANEL_WIDTH + GAP)
            parts += _panel(panel, groups, layout, plot.metric, renewed, left, height)
        height += HEAD + ROW * max(len(groups) for _, groups in line) + FOOT
    width = 2 * MARGIN + columns * PANEL_WIDTH + (columns - 1) * GAP
    title = f"{layout.metrics[plot.metric]} of every model, its mean and standard deviation over seeds"
    untrained = any(not group.seeds and "source" not in group.rows[0] for _, groups in panels for group in groups)
    legend = _legend(untrained, bool(placed), bool(again), plot.leave_out, MARGIN, top - 12)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<style>\n{STYLE}\n</style>\n'
        f'<rect class="paper" width="{width}" height="{height}" rx="6"/>\n'
        + "\n".join([*legend, *parts])
        + "\n</svg>\n"
    )


def _legend(untrained: bool, published: bool, again: bool, left_out: Sequence[str], left: float, y: float) -> list[str]:
    marks = [
        (_dot(left + 5, y, "mean"), "mean ± deviation", 124),
        (_dot(left + 5, y, "seed", 2.6), "one seed", 78),
    ]
    marks += [(_dot(left + 5, y, "plain", 3.6), "nothing trained", 112)] if untrained else []
    marks += [(_diamond(left + 5, y, "published"), "published", 86)] if published else []
    marks += [(_dot(left + 5, y, "again"), "measured again", 116)] if again else []
    parts, moved = [], 0.0
    for mark, text, width in marks:
        parts.append(f'<g transform="translate({moved:g} 0)">{mark}{_text(left + 14, y + 4, text, "quiet")}</g>')
        moved += width
    if left_out:
        parts.append(_text(left + moved + 6, y + 4, f"not drawn: {', '.join(left_out)}", "quiet"))
    return parts


def _panel(
    panel: Key,
    groups: Sequence[Group],
    layout: Layout,
    metric: str,
    renewed: dict[Key, Group],
    left: float,
    top: float,
) -> list[str]:
    """One panel: a title, a grid with its ticks and a row per model."""
    names = [name for name in layout.shown if name != MODEL]
    title = ", ".join(shown(name, value) for name, value in zip(names, panel, strict=True))
    again = [renewed.get(tuple(group.key.values())) for group in groups]
    values = [value for group in [*groups, *filter(None, again)] for value in _extent(group, metric)]
    low, high = padded(values, share=0.08)
    scale = Scale(low, high, left + LABELS, left + PANEL_WIDTH - FIGURES)
    bottom = top + HEAD + ROW * len(groups)
    parts = [_text(left, top + 18, f"{title}: {layout.metrics[metric]}", "title")]
    for tick in scale.ticks(4):
        x = scale(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {top + HEAD - 6:g}V{bottom:g}"/>')
        parts.append(_text(x, bottom + 14, _tick(tick), "quiet", "middle"))
    for place, (group, new) in enumerate(zip(groups, again, strict=True)):
        parts += _row(group, new, metric, scale, left, top + HEAD + ROW * (place + 0.5))
    return parts


def _row(group: Group, new: Group | None, metric: str, scale: Scale, left: float, y: float) -> list[str]:
    name, mean = group.key[MODEL], group.mean(metric)
    assert mean is not None
    short = name if len(name) <= CHARACTERS else f"{name[: CHARACTERS - 1]}…"
    parts = [f"<title>{escape(_tooltip(group, metric))}</title>", _text(left + LABELS - 10, y + 4, short, "", "end")]
    if "source" in group.rows[0]:
        parts.append(_diamond(scale(mean), y, "published"))
    elif not group.seeds:
        parts.append(_dot(scale(mean), y, "plain", 3.6))
    else:
        parts += _marks(group, metric, scale, y, "")
    if new is not None and new.mean(metric) is not None:
        parts += _marks(new, metric, scale, y + 6, " again")
    parts.append(_text(scale.end + 8, y + 4, figure(mean), "quiet"))
    return [f"<g>{''.join(parts)}</g>"]


def _marks(group: Group, metric: str, scale: Scale, y: float, kind: str) -> list[str]:
    mean, spread = group.mean(metric), group.spread(metric)
    assert mean is not None
    parts = [_dot(scale(value), y, f"seed{kind}", 2.6) for value in group.values(metric)]
    if spread:
        start, end = scale(mean - spread), scale(mean + spread)
        parts.append(f'<path class="spread{kind}" d="M{start:.1f} {y:g}H{end:.1f}"/>')
    return [*parts, _dot(scale(mean), y, f"mean{kind}")]


def _extent(group: Group, metric: str) -> list[float]:
    mean, spread = group.mean(metric), group.spread(metric) or 0.0
    return [*group.values(metric), *([] if mean is None else [mean - spread, mean + spread])]


def _tooltip(group: Group, metric: str) -> str:
    spread = group.spread(metric)
    text = f"{group.key[MODEL]}: {figure(group.mean(metric))}"
    text += "" if spread is None else f" ± {figure(spread)}"
    return text + "".join(f"; seed {row[SEED]}: {figure(float(row[metric]))}" for row in group.rows if group.seeds)


def _tick(value: float) -> str:
    return f"{value:.3f}".rstrip("0").removesuffix(".").removeprefix("0") or "0"


def _dot(x: float, y: float, kind: str, radius: float = 4) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:g}" r="{radius:g}"/>'


def _diamond(x: float, y: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x - 5:.1f} {y:g}l5 -5 5 5 -5 5z"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return (
        f'<text x="{x:.1f}" y="{y:g}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}{place}>{escape(text)}</text>'
    )
