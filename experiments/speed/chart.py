"""The ratios as bars, one panel for each task, on a logarithmic scale."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from experiments.speed.table import Row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes an SVG; ImportError where matplotlib is missing."""
    matplotlib = importlib.import_module("matplotlib")  # in the extra "bench" only
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "genrec"  # the same rows give the same file
    pyplot = importlib.import_module("matplotlib.pyplot")
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.ratio is not None:
            by_task.setdefault(row.task, []).append(row)
    panels = {task: chosen for task, chosen in by_task.items() if len(chosen) > 1}
    if not panels:
        return
    heights = [len(chosen) + 1.5 for chosen in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(9, 0.32 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (task, chosen) in zip(axes[:, 0], panels.items(), strict=True):
        ratios = [row.ratio or 0.0 for row in chosen]
        below = [ratio - (row.ratio_low or ratio) for row, ratio in zip(chosen, ratios, strict=True)]
        above = [(row.ratio_high or ratio) - ratio for row, ratio in zip(chosen, ratios, strict=True)]
        colours = ["#1b6ca8" if row.ours else "#b0b0b0" for row in chosen]
        axis.barh([row.contender for row in chosen], ratios, xerr=[below, above], color=colours)
        axis.set_xscale("log")
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_title(f"{task}: times faster than {chosen[0].reference}", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
