"""``make schedules``: every learning-rate schedule as one small panel of an SVG, with warm-up and minimum shown.

``python -m genrec.schedule_chart --output curves.svg --total-steps 5000`` draws them for a run of another length.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from genrec import schedulers
from genrec.artifacts import atomic_path
from genrec.contracts import GenrecError
from genrec.schedulers import Plateau, Schedule

KINDS: tuple[type[Schedule], ...] = (
    schedulers.Constant,
    schedulers.Linear,
    schedulers.Cosine,
    schedulers.CosineRestarts,
    schedulers.Polynomial,
    schedulers.Exponential,
    schedulers.Step,
    schedulers.MultiStep,
    schedulers.OneCycle,
    schedulers.Cyclic,
    schedulers.InverseSqrt,
    schedulers.Plateau,
)

_COLUMNS, _POINTS = 4, 200
_WIDTH, _HEIGHT = 190, 110  # of a panel's axes
_LEFT, _TOP, _GAP_X, _GAP_Y = 36, 52, 34, 46
_INK, _CURVE, _WARM = "#333333", "#1b6ca8", "#f3e3c3"


def short_name(kind: type[Schedule]) -> str:
    """The option of the config group: ``CosineRestarts`` is ``cosine_restarts``; a multi-step is ``multistep``."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    return {"multi_step": "multistep"}.get(name, name)


def curve(schedule: Schedule, total_steps: int) -> list[tuple[float, float]]:
    """``(share of the run, factor)`` at about 200 steps; a plateau is shown with a metric that stops improving."""
    points, validated = [], 0
    every = max(total_steps // 20, 1)  # a validation
    for index in range(_POINTS + 1):
        step = min(index * total_steps // _POINTS, total_steps - 1)
        while isinstance(schedule, Plateau) and (validated + 1) * every <= step:
            validated += 1
            schedule.on_metric(min(validated, 6), "max")
        points.append((index / _POINTS, schedule.factor(step, total_steps)))
    return points


def draw(*, total_steps: int = 10_000, warmup_steps: int = 1000, min_lr_ratio: float = 0.1) -> str:
    """The chart as SVG; the same arguments give the same text."""
    rows = -(-len(KINDS) // _COLUMNS)
    width = _LEFT + _COLUMNS * (_WIDTH + _GAP_X)
    height = _TOP + rows * (_HEIGHT + _GAP_Y)
    head = (
        f"Learning rate as a share of optimizer.lr over {total_steps} steps: "
        f"warmup_steps={warmup_steps} (shaded), min_lr_ratio={min_lr_ratio:g} (dashed), all else by default"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="12" fill="{_INK}">{head}</text>',
    ]
    for index, kind in enumerate(KINDS):
        schedule = kind(warmup_steps=warmup_steps, min_lr_ratio=min_lr_ratio)
        left = _LEFT + index % _COLUMNS * (_WIDTH + _GAP_X)
        top = _TOP + index // _COLUMNS * (_HEIGHT + _GAP_Y)
        parts += _panel(short_name(kind), schedule, total_steps, left, top)
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, schedule: Schedule, total_steps: int, left: int, top: int) -> list[str]:
    bottom, warm = top + _HEIGHT, schedule.num_warmup_steps(total_steps) / total_steps * _WIDTH
    floor = bottom - schedule.min_lr_ratio * _HEIGHT
    line = " ".join(f"{left + x * _WIDTH:.1f},{bottom - y * _HEIGHT:.1f}" for x, y in curve(schedule, total_steps))
    return [
        f'<g id="{name}" stroke-width="0.6">',
        f'<text x="{left}" y="{top - 6}" font-weight="bold" fill="{_INK}">{name}</text>',
        f'<rect x="{left}" y="{top}" width="{warm:.1f}" height="{_HEIGHT}" fill="{_WARM}"/>',
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="{_INK}"/>',
        f'<line x1="{left}" y1="{floor:.1f}" x2="{left + _WIDTH}" y2="{floor:.1f}" stroke="{_INK}"'
        ' stroke-dasharray="3 3"/>',
        f'<polyline points="{line}" fill="none" stroke="{_CURVE}" stroke-width="1.6"/>',
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end" fill="{_INK}">1</text>',
        f'<text x="{left - 4}" y="{bottom}" text-anchor="end" fill="{_INK}">0</text>',
        f'<text x="{left}" y="{bottom + 12}" fill="{_INK}">0</text>',
        f'<text x="{left + _WIDTH}" y="{bottom + 12}" text-anchor="end" fill="{_INK}">{total_steps} steps</text>',
        "</g>",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m genrec.schedule_chart", description="Draws every schedule.")
    parser.add_argument("--output", type=Path, default=Path("outputs/schedules.svg"), help="the SVG to write")
    parser.add_argument("--total-steps", type=int, default=10_000, help="length of the run")
    parser.add_argument("--warmup-steps", type=int, default=1000, help="warm-up of every schedule")
    parser.add_argument("--min-lr-ratio", type=float, default=0.1, help="minimum of every schedule")
    options = parser.parse_args(argv)
    if options.total_steps < 1:
        parser.error("--total-steps: give a number of steps, 1 or more")
    try:
        chart = draw(
            total_steps=options.total_steps, warmup_steps=options.warmup_steps, min_lr_ratio=options.min_lr_ratio
        )
    except GenrecError as error:
        parser.error(str(error))
    with atomic_path(options.output) as unfinished:
        unfinished.write_text(chart, encoding="utf-8")
    sys.stdout.write(f"{options.output}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
