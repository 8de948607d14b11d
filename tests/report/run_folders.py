"""Run folders as runs leave them, small and of any age and state."""

from __future__ import annotations

import fcntl
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

NOW = 1_700_000_000.0


def make_run(
    folder: Path,
    *,
    state: str = "finished",
    overrides: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    final: Mapping[str, float] | None = None,
    epochs: Sequence[Mapping[str, float]] = (),
    started: float = NOW,
    seconds: float = 60.0,
    **facts: Any,
) -> Path:
    """Writes the files of a run and returns its folder; ``facts`` go into ``run.json``."""
    known = {
        "state": state,
        "config_key": folder.name,
        "started": started,
        "ended": None if state == "running" else started + seconds,
        "error": None,
        "model": "tiger",
        "data": "synthetic",
        "monitor": "val/recall@10",
        "direction": "max",
        "choices": {"model": "tiger", "trainer": "advanced"},
        "pid": 1,
        "host": socket.gethostname(),
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "run.json", known)
    _write(folder / "overrides.yaml", list(overrides))
    _write(folder / "config.yaml", dict(config or {}))
    if final is not None:
        _write(folder / "metrics.json", {"final": dict(final), "history": {}})
    if epochs:
        _write(folder / "history.json", [dict(row) for row in epochs])
    return folder


def make_sweep(folder: Path, *, state: str = "finished", started: float = NOW) -> Path:
    """What a sweep writes beside its jobs."""
    facts = {"state": state, "started": started, "ended": None, "command": ["-m"], "key": "k", "sweeper": "basic"}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "sweep.json", {**facts, "objectives": [["val/recall@10", "max"]]})
    return folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder held as by a process that runs in it: the lock belongs to the open file, not to the process."""
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, value: Any) -> None:
    """Without the care of ``genrec.artifacts``, which waits for the disk: a test needs many folders."""
    path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value), encoding="utf-8")
