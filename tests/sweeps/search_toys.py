"""A launcher that runs no training: it writes the run folders that a function of the overrides asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from genrec.artifacts import write_json
from genrec.sweeps.optuna_sweeper import OptunaSweeper
from genrec.sweeps.search import Search

MONITOR = "val/recall@10"
Job = Callable[[dict[str, Any]], dict[str, Any]]


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides as a launcher's job would see them."""
    return {item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(list(overrides))}


@dataclass
class ToyLauncher:
    """``job`` gives the final metrics of a trial, or ``{"state": ...}``; before trial ``killed_at`` all ends."""

    folder: Path
    job: Job
    killed_at: int | None = None
    calls: list[tuple[int, int]] = field(default_factory=list)
    seen: dict[int, dict[str, Any]] = field(default_factory=dict)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.calls.append((initial_job_idx, len(job_overrides)))
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            if number == self.killed_at:
                raise KeyboardInterrupt
            self.seen[number] = parsed(overrides)
            result = dict(self.job(self.seen[number]))
            state = result.pop("state", "finished")
            if state != "nothing":
                write_run(self.folder / str(number), state, result)
        return [None] * len(job_overrides)


def write_run(folder: Path, state: str, final: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    error = "the data is missing" if state == "failed" else None
    write_json(folder / "run.json", {"state": state, "started": time.time(), "error": error, "config_key": "x"})
    write_json(folder / "metrics.json", {"final": final, "history": {}})


class ToyLoader:
    """Composes everything but what names ``broken``."""

    def load_sweep_config(self, config: DictConfig, overrides: list[str]) -> DictConfig:
        if any("broken" in override for override in overrides):
            raise ConfigCompositionException("there is no broken\nand more")
        return config


@dataclass
class World:
    """A folder of a sweep, and searches in it."""

    folder: Path

    @property
    def storage(self) -> str:
        """What is quicker to open than SQLite."""
        return f"journal:{self.folder / 'study.log'}"

    def search(self, job: Job, words: Sequence[str] = (), killed_at: int | None = None, **options: Any) -> Search:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweeper = OptunaSweeper(**{"storage": self.storage, **options})
        named = {"objectives": options.get("objectives"), "directions": options.get("directions")}
        config = OmegaConf.create({
            "hydra": {
                "sweep": {"dir": str(self.folder)},
                "sweeper": named,
                "launcher": {},
                "runtime": {"choices": {"trainer": "advanced"}},
            },
            "trainer": {"monitor": MONITOR, "mode": "auto"},
        })  # fmt: skip
        self.launcher = ToyLauncher(self.folder, job, killed_at)
        return Search(sweeper, words, self.launcher, ToyLoader(), config)  # pyright: ignore[reportArgumentType]
