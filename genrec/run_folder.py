"""The folder of a run: who holds it, how the run in it stands, and which unfinished one to continue."""

from __future__ import annotations

import fcntl
import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import genrec
from genrec.artifacts import fingerprint, read_json, remove_unfinished, write_json, write_text
from genrec.contracts import GenrecError

log = logging.getLogger("genrec.run")

FEATURES_FILE = "features.json"  # how raw columns of a table become what the weights were trained on

_RESULTS = (
    "run.json",
    "run.log",
    "metrics.json",
    "timing.json",
    "semantic_ids.npz",
    "tokenizer_report.json",
    "codec.npz",
    FEATURES_FILE,
    "predictions.parquet",
    "user_embeddings.parquet",
    "item_embeddings.parquet",
    "tensorboard",
    "csv",
    "wandb",
)

STATE_FILE = "run.json"  # {"state": running | finished | failed, "config_key": ..., "started": ...}
_LOCK_FILE = ".lock"
_VOLATILE_KEYS = (
    "output_dir",
    "runs_dir",
    "cache_dir",
    "resume",
    "logger",
    "callbacks",
    "progress",
    "data_root",
)  # compute nothing


class RunFolder:
    """A run folder that this process holds while the block of ``held`` runs; ``run.json`` says how it ended."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = Path(path)
        self.key = key

    @contextmanager
    def held(self, *, resumed: bool = False) -> Iterator[None]:
        """Two processes never write into one folder, and what genrec logs meanwhile is copied into ``run.log``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path), self._cleared(resumed), _run_log(self.path):
            self._mark("running")
            try:
                yield
            except BaseException:
                self._mark("failed")
                raise
            self._mark("finished")

    @contextmanager
    def _cleared(self, resumed: bool) -> Iterator[None]:
        """Without half-written files and, for a new run, without the results of an earlier one in the same folder."""
        remove_unfinished(self.path)
        for name in () if resumed or not (self.path / STATE_FILE).exists() else _RESULTS:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield

    def _mark(self, state: str) -> None:
        path = self.path / STATE_FILE
        started = read_json(path)["started"] if path.exists() else time.time()
        write_json(path, {"state": state, "config_key": self.key, "started": started})

    def write_config(self, config: DictConfig) -> None:
        """The resolved config, and the overrides that led to it."""
        from hydra.core.hydra_config import HydraConfig

        write_text(self.path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
        write_text(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))


def config_key(config: DictConfig) -> str:
    """A fingerprint of what a run computes, blind to where it writes and how it is watched."""
    copy = config.copy()
    copy.output_dir = ""
    copy.progress = True  # nodes of the data refer to it
    plain: Any = OmegaConf.to_container(copy, resolve=True)
    return fingerprint({name: value for name, value in plain.items() if name not in _VOLATILE_KEYS})


def resume_folder(config: DictConfig, key: str) -> Path | None:
    """The folder to continue in, None for a fresh start; ``auto`` is the newest unfinished run of this config."""
    if config.resume is None:
        return None
    if config.resume == "auto":
        return _newest_unfinished(Path(config.runs_dir), key)
    folder = Path(config.resume)
    if not (folder / STATE_FILE).exists():
        raise GenrecError(
            f"resume={folder} is no run folder (it has no {STATE_FILE}). "
            f"Give one below {config.runs_dir}, or resume=auto."
        )
    if read_json(folder / STATE_FILE)["config_key"] != key:
        raise GenrecError(
            f"{folder} was started with another config, so continuing it would mix two experiments. "
            f"Repeat its overrides (they stand in {folder / 'overrides.yaml'}) or start a new run."
        )
    return folder


def _newest_unfinished(runs_dir: Path, key: str) -> Path | None:
    candidates = []
    for path in runs_dir.glob(f"**/{STATE_FILE}"):
        try:
            state = read_json(path)
        except GenrecError as error:  # a broken file elsewhere is no reason not to continue here
            log.warning("%s", error)
            continue
        if state.get("config_key") == key and state.get("state") != "finished" and not _is_locked(path.parent):
            candidates.append((state.get("started", 0.0), path.parent))
    if not candidates:
        log.info("resume=auto: no unfinished run of this config below %s, so a new one starts", runs_dir)
        return None
    folder = max(candidates)[1]
    log.info("resume=auto: continuing %s", folder)
    return folder


def remove_if_empty(folder: Path) -> None:
    """Hydra makes a folder at every start; a resumed run writes elsewhere, so its empty one goes away."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def git_state() -> dict[str, Any] | None:
    """The commit of the code and how many files differ from it; None outside a git checkout."""

    def git(*words: str) -> str:
        place = Path(genrec.__file__).parent
        return subprocess.run(["git", *words], cwd=place, capture_output=True, text=True, check=True, timeout=5).stdout

    try:
        changed = git("status", "--porcelain", "--", ".").splitlines()
        return {"commit": git("rev-parse", "HEAD").strip(), "changed_files": len(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _is_locked(folder: Path) -> bool:
    try:
        with _locked(folder):
            return False
    except GenrecError:
        return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / _LOCK_FILE, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GenrecError(
                f"Another process is running in {folder}. Wait for it, or choose another folder (hydra.run.dir=...)."
            ) from None
        yield


@contextmanager
def _run_log(folder: Path) -> Iterator[None]:
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("genrec")
    level = logger.level
    if not logger.isEnabledFor(logging.INFO):  # a program that uses genrec may not have set up logging at all
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
