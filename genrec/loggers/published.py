"""What a run tells its loggers beyond curves: how it is called, what was set, and what it has made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ARTIFACTS = ("report.html", "semantic_ids.npz", "checkpoints/best_model.pt", "features.json")
_FOLDERS = {"output_dir", "runs_dir", "cache_dir", "data_root"}
_ELSEWHERE = _FOLDERS | {"resume", "progress", "logger", "callbacks", "baselines", "environment"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LONGEST_NAME = 128


@dataclass(frozen=True)
class RunName:
    """How a run is called where many are looked at. ``group`` is that of the runs of one sweep; ``resumed`` says that
    the folder holds the beginning of this run already."""

    name: str
    folder: Path
    group: str | None = None
    job_type: str | None = None
    resumed: bool = False


@dataclass(frozen=True)
class ItemMap:
    """The items of a catalogue as points: ``vectors`` (N, D), a title and a raw id each, and codes (N, C) where there
    are semantic IDs."""

    vectors: np.ndarray
    titles: Sequence[str]
    item_ids: Sequence[Any]
    codes: np.ndarray | None = None


@dataclass(frozen=True)
class PublishedRun:
    """A run that has ended. ``items`` is asked only by loggers that draw items, since a model has to compute them."""

    folder: Path
    final: Mapping[str, float]
    config: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    items: Callable[[], ItemMap | None] = lambda: None

    def files(self, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
        """The files of the run folder that patterns such as ``checkpoints/*.pt`` name, with their names in it."""
        for pattern in patterns:
            for path in sorted(self.folder.glob(pattern)):
                if path.is_file():
                    yield path.relative_to(self.folder).as_posix(), path

    @property
    def identity(self) -> dict[str, Any]:
        """What tells whether two runs computed the same: fingerprints, the key of the config, the seed, the commit."""
        known = {name: value for name, value in self.environment.items() if name.endswith("_fingerprint")}
        git = self.environment.get("git") or {}
        known |= {"config_key": self.environment.get("config_key"), "seed": self.config.get("seed")}
        known["commit"] = git.get("commit")
        return {name: value for name, value in known.items() if value is not None}


def name_run(
    folder: Path,
    *,
    sweep: Path | None = None,
    overrides: Sequence[str] = (),
    command: Sequence[str] = (),
    resumed: bool = False,
) -> RunName:
    """A run alone is called like its folder; a run of a sweep by what only it was told, in the group of its sweep.

    ``overrides`` are all of the run's, ``command`` the words that started the sweep: what stands there too is the same
    in every run. A group is named after the folder of the sweep, which below a date is a mere time.
    """
    if sweep is None:
        return RunName(folder.name, folder, resumed=resumed)
    dated = _DATE.fullmatch(sweep.parent.name)
    group = f"{sweep.parent.name}_{sweep.name}" if dated else sweep.name
    own = [word for word in map(_bare, overrides) if not _is_common(word, command)]
    name = " ".join(_shortened(own)) or folder.name
    return RunName(name[:_LONGEST_NAME], folder, group[:_LONGEST_NAME], "sweep", resumed)


def _bare(word: str) -> str:
    return word.lstrip("+~")


def _is_common(word: str, command: Sequence[str]) -> bool:
    """Whether the command gives this key one value, however Hydra spells it: ``lr=1e-3`` comes back as ``lr=0.001``."""
    for given in map(_bare, command):
        if given.partition("=")[0] == word.partition("=")[0]:
            one_value = not re.search(r",|\w\(", given)
            return one_value or given.replace(" ", "").lower() == word.lower()
    return False


def _shortened(overrides: Sequence[str]) -> list[str]:
    """``optimizer.lr=0.00123456`` as ``lr=0.001235``, its whole key where two would read the same."""
    pairs = [word.partition("=")[::2] for word in overrides]
    last = [key.rpartition(".")[2] for key, _ in pairs]
    keys = [short if last.count(short) == 1 else key for short, (key, _) in zip(last, pairs, strict=True)]
    return [f"{key}={_rounded(value)}" for key, (_, value) in zip(keys, pairs, strict=True)]


def _rounded(text: str) -> str:
    if not re.fullmatch(r"-?\d*\.\d{4,}(e-?\d+)?", text):
        return text
    return f"{float(text):.4g}"


def parameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The settings that may explain a result, as one flat table: ``{"model": "TIGER", "optimizer.lr": 0.001}``.

    A node stands by the class of what it builds; lists are told as text; what is not set, where files lie and how a
    run is watched are left out.
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in config.items():
        if name not in _ELSEWHERE:
            _flatten(name, value, flat)
    return flat


def _flatten(place: str, value: Any, flat: dict[str, bool | int | float | str]) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value:
            flat[place] = str(value["_target_"]).rpartition(".")[2]
        for key, item in value.items():
            if not str(key).startswith("_"):
                _flatten(f"{place}.{key}", item, flat)
    elif isinstance(value, bool | int | float | str):
        flat[place] = value
    elif value is not None:
        flat[place] = str(value)


def results(final: Mapping[str, float]) -> dict[str, float]:
    """Final metrics by names that no curve has: ``val/recall@10`` of the weights that were kept is
    ``final/val/recall@10``, since the curve ends with another epoch."""
    return {f"final/{name}" if name.startswith(("train/", "val/")) else name: value for name, value in final.items()}
