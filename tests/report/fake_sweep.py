"""Folders of sweeps that nobody ran: every file that ``genrec.records`` reads, with numbers that are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from genrec.artifacts import write_json, write_text

MONITOR = "val/recall@10"
STARTED = 1_760_000_000.0


def fake_run(
    folder: Path,
    overrides: Mapping[str, Any],
    value: float | None = None,
    *,
    state: str = "finished",
    curve: Sequence[float] | None = None,
    error: str | None = None,
    final: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    started: float = STARTED,
    seconds: float = 60.0,
    monitor: str = MONITOR,
    direction: str = "max",
) -> Path:
    """A run folder. ``value`` is what it reached; ``curve`` the monitored metric by epoch, made up where not given."""
    run = {
        "state": state,
        "config_key": "0" * 16,
        "started": started,
        "ended": None if state == "running" else started + seconds,
        "error": error,
        "model": "tiger",
        "data": "synthetic",
        "monitor": monitor,
        "direction": direction,
        "choices": dict(choices or {"model": "tiger", "trainer": "advanced", "data": "synthetic"}),
    }
    write_json(folder / "run.json", run)
    write_text(folder / "overrides.yaml", yaml.safe_dump([f"{key}={value}" for key, value in overrides.items()]))
    write_text(folder / "config.yaml", yaml.safe_dump(_config(overrides, config or {})))
    if curve is None:
        curve = [value * (1 - math.exp(-epoch / 3)) for epoch in range(1, 10)] + [value] if value is not None else []
    rows = [
        {"epoch": epoch, "step": 10 * epoch, "seconds": 6.0 * epoch, "train/loss": 3 / epoch, monitor: float(reached)}
        for epoch, reached in enumerate(curve, start=1)
    ]
    if rows:
        write_json(folder / "history.json", rows)
    if state == "finished":
        known = (
            {monitor: value, "test/recall@10": 0.9 * value, "test/ndcg@10": 0.5 * value} if value is not None else {}
        )
        write_json(folder / "metrics.json", {"final": {**known, **(final or {})}, "history": rows})
        write_json(folder / "timing.json", {"fit": seconds - 5, "test": 5.0, "total": seconds})
    return folder


def fake_sweep(
    folder: Path,
    *,
    state: str = "finished",
    command: Sequence[str] = ("-m", "trainer=advanced", "optimizer.lr=1e-3,3e-3"),
    sweeper: str = "basic",
    objectives: Sequence[tuple[str, str]] = ((MONITOR, "max"),),
    ended: float | None = STARTED + 600,
) -> Path:
    """``sweep.json``; runs are put into it by ``fake_run(folder / "0", ...)``."""
    write_json(
        folder / "sweep.json",
        {
            "state": state,
            "started": STARTED,
            "ended": ended if state != "running" else None,
            "command": list(command),
            "key": "1" * 16,
            "sweeper": sweeper,
            "objectives": [list(objective) for objective in objectives],
        },
    )
    return folder


_GROUPS = ("model", "trainer", "data", "optimizer", "scheduler")


def _config(overrides: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {"seed": 42, "optimizer": {"lr": 0.001}, **extra}
    for name, value in overrides.items():
        *above, last = name.split(".")
        node = config
        for part in above:
            node = node.setdefault(part, {})
        if not above and last in _GROUPS:  # composed of the file of that name
            config.setdefault(last, {}).setdefault("_target_", f"genrec.{last}.{value}")
        elif isinstance(node, dict) and not (not above and isinstance(node.get(last), dict)):
            node[last] = yaml.safe_load(str(value))
    return config
