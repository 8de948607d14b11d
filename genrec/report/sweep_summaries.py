"""Charts of what a sweep amounts to: the importance of its parameters, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from genrec.report import drawing
from genrec.report.drawing import WIDTH, Plot, figure, text
from genrec.report.html import Markup, element, join
from genrec.report.importance import Importance, Importances
from genrec.report.scales import Scale, format_number, format_ticks, padded
from genrec.report.seed_groups import SeedGroup
from genrec.report.sweep_marks import Objective, fitted, line, named, ticks_below, within
from genrec.tables import short_names


def importance_chart(importances: Importances, metric: str = "", note: str = "") -> Markup:
    """A bar per parameter, with the interval of its share; ``metric`` is what they are shares of."""
    shares = importances.shares
    if not shares:
        return Markup("")
    names = short_names([importance.name for importance in shares])
    width, row = WIDTH, 34.0
    left = min(24 + 8.6 * max(len(name) for name in names), 0.4 * width)
    widest = max(max(importance.high or 0.0, importance.share) for importance in shares)
    x = Scale(0, widest, left, width - 56)
    rows = [_importance_row(importance, name, x, 20 + place * row)
            for place, (importance, name) in enumerate(zip(shares, names, strict=True))]  # fmt: skip
    return figure(element("g", *rows, class_="series c0", data_name="share"), title=f"Shares in {metric}", note=note,
                  width=width, height=8 + row * len(shares), classes="importance")  # fmt: skip


def _importance_row(importance: Importance, name: str, x: Scale, middle: float) -> Markup:
    share, low, high = importance.share, importance.low, importance.high
    words, whisker = f"{share:.0%}", None
    if low is not None and high is not None:
        words += f" ({low:.0%} to {high:.0%})"
        whisker = line(x(low), middle, x(high), middle, "whisker")
    bar = element("rect", element("title", f"{importance.name}: {words}"), x=x.start, y=middle - 9, height=18, rx=2,
                  width=max(x(share) - x.start, 1.5), class_="bar", data_x=importance.name, data_y=words)  # fmt: skip
    edge = x(max(share, high or 0.0)) + 8
    name_ = fitted(x.start - 10, middle, name, 0.76 * (x.start - 12), "tick middle", "end", importance.name)
    return join([name_, bar, whisker, text(edge, middle, f"{share:.0%}", classes="value middle")])


def seeds_chart(groups: Sequence[SeedGroup], objective: Objective) -> Markup:
    """A row per setting: a dot per seed, the mean as a bar and the 95 % interval of the mean as a band."""
    metric = objective[0]
    known = [group for group in groups if metric in group.mean]
    if not known:
        return Markup("")
    low, high = _seed_range(known, metric)
    width, row = WIDTH, 50.0
    height = 50 + row * len(known)
    area = Plot(Scale(low, high, 14, width - 14), Scale(0, 1, height - 42, 4), width, height)
    values = area.x.ticks(6)
    ticks = list(zip(map(area.x, values), format_ticks(values), strict=True))
    parts = [line(x, area.top, x, area.bottom) for x, _ in ticks]
    parts += [_seed_row(group, metric, area.x, area.top + index * row) for index, group in enumerate(known)]
    parts += [ticks_below(area, ticks), drawing.axis_names(area, named(objective), "")]
    return figure(join(parts), title=f"{metric} over seeds", width=width, height=height, classes="seeds")


def _seed_range(groups: Sequence[SeedGroup], metric: str) -> tuple[float, float]:
    """Room for the seeds and the intervals of their means, but not for intervals, as those of two seeds are, that would
    press the seeds into a point."""
    values = [value for group in groups for value in group.values[metric]]
    bounds = [bound for group in groups for bound in (group.low[metric], group.high[metric]) if bound is not None]
    reach = max(values) - min(values)
    low, high = min([*values, *bounds]), max([*values, *bounds])
    return padded([max(low, min(values) - reach), min(high, max(values) + reach)])


def _seed_row(group: SeedGroup, metric: str, x: Scale, y: float) -> Markup:
    words = setting(group) or "all runs"
    middle, mean, low, high = y + 33, group.mean[metric], group.low[metric], group.high[metric]
    parts = [fitted(x.start, y + 16, words, x.end - x.start, "axis-name halo", "start")]
    if low is not None and high is not None:
        title = f"mean {format_number(mean)}, 95 % interval {format_number(low)} to {format_number(high)}"
        start, end = within(x, low), within(x, high)
        parts.append(element("rect", element("title", title), x=start, y=middle - 8, width=max(end - start, 1.0),
                             height=16, rx=4, class_="interval"))  # fmt: skip
    parts.append(line(x(mean), middle - 11, x(mean), middle + 11, "mean"))
    for seed, value, run in zip(group.seeds, group.values[metric], group.runs, strict=True):
        title = element("title", f"seed {seed} (run {run.folder.name}): {format_number(value)}")
        dot = element("circle", cx=x(value), cy=middle, r=4.5)
        parts.append(element("g", title, dot, class_="seed-dot", data_run=run.folder.name))
    return join(parts)


def setting(group: SeedGroup) -> str:
    """What the runs of a group have in common: ``lr 1e-3, patience 2``."""
    names = short_names(list(group.overrides))
    return ", ".join(f"{name} {value}" for name, value in zip(names, group.overrides.values(), strict=True))
