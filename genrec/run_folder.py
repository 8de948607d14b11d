"""The folder of a run: who holds it, how the run in it stands, and which unfinished one to continue."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import genrec
from genrec.artifacts import fingerprint, is_locked, lock, read_json, remove_unfinished, write_json, write_text
from genrec.contracts import GenrecError
from genrec.masking import MaskingFormatter, masked, masked_words, scrub, secret_values, secrets_of_environment
from genrec.records import (
    FAILED,
    FINISHED,
    HISTORY_FILE,
    KILLED,
    LOCK_FILE,
    PRUNED,
    REPORT_FILE,
    RESOURCES_FILE,
    ROWS_FILE,
    RUN_FILE,
    RUNNING,
    SAMPLES_FILE,
    USERS_FILE,
    RunRecord,
    read_run,
    run_files,
)

log = logging.getLogger("genrec.run")

FEATURES_FILE = "features.json"  # how raw columns of a table become what the weights were trained on

_RESULTS = (
    RUN_FILE,
    HISTORY_FILE,
    USERS_FILE,
    ROWS_FILE,
    SAMPLES_FILE,
    RESOURCES_FILE,
    REPORT_FILE,
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

STATE_FILE = RUN_FILE
_NO_KEY = ""  # of a job that failed before its config was known: there is nothing to continue
_VOLATILE_KEYS = (
    "output_dir",
    "runs_dir",
    "cache_dir",
    "resume",
    "seeds",
    "logger",
    "callbacks",
    "progress",
    "data_root",
    "allow_targets",
)  # compute nothing


class RunFolder:
    """A run folder that this process holds while the block of ``held`` runs; ``run.json`` says how it ended.

    What is secret in ``config`` and in the environment is written nowhere in it.
    """

    def __init__(self, path: Path, key: str, config: DictConfig | None = None) -> None:
        self.path = Path(path)
        self.key = key
        plain: Any = {} if config is None else OmegaConf.to_container(config, resolve=False)
        self.secrets = [*secret_values(plain), *secrets_of_environment()]
        self._ended = False

    @contextmanager
    def held(self, *, resumed: bool = False) -> Iterator[None]:
        """Two processes never write into one folder, and what genrec logs meanwhile is copied into ``run.log``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path), self._cleared(resumed), _run_log(self.path, self.secrets):
            self._ended = False
            self._mark(RUNNING, pid=os.getpid(), host=socket.gethostname())
            try:
                yield
            except BaseException as error:
                self.fail(error)
                raise
            self.end(FINISHED)

    def end(self, state: str, **facts: Any) -> None:
        """Says how the run ended, once; ``facts`` are added to what ``run.json`` tells of it."""
        if not self._ended:
            self._mark(state, ended=time.time(), **facts)
            self._ended = True

    def fail(self, error: BaseException) -> None:
        """Says why the run ended before its time; one that was interrupted counts as killed."""
        text = scrub(str(error), self.secrets) or type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            self.end(KILLED, error="Interrupted from the keyboard.")
        else:
            self.end(FAILED, error=text if isinstance(error, GenrecError) else f"{type(error).__name__}: {text}")

    def describe(self, **facts: Any) -> None:
        """Adds to what ``run.json`` tells of the run."""
        self._mark(RUNNING, **facts)

    @contextmanager
    def _cleared(self, resumed: bool) -> Iterator[None]:
        """Without half-written files and, for a new run, without the results of an earlier one in the same folder."""
        remove_unfinished(self.path)
        for name in () if resumed or not (self.path / STATE_FILE).exists() else _RESULTS:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield

    def _mark(self, state: str, **facts: Any) -> None:
        path = self.path / STATE_FILE
        known = read_json(path) if path.exists() else {"started": time.time()}
        known = {name: value for name, value in known.items() if name not in ("ended", "error")}
        write_json(path, {**known, "state": state, "config_key": self.key, **facts})

    def write_config(self, config: DictConfig) -> None:
        """The resolved config, and the overrides that led to it; secrets are left out of both, and that a run is
        continued is no part of what it is."""
        from hydra.core.hydra_config import HydraConfig

        plain = masked(OmegaConf.to_container(config, resolve=True))
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
        given = masked_words(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
        overrides = [word for word in given if word.partition("=")[0].lstrip("+") != "resume"]
        write_text(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))


def config_key(config: DictConfig) -> str:
    """A fingerprint of what a run computes, blind to where it writes and how it is watched."""
    copy = config.copy()
    copy.output_dir = ""
    copy.progress = True  # nodes of the data refer to it
    plain: Any = OmegaConf.to_container(copy, resolve=True)
    return fingerprint({name: value for name, value in plain.items() if name not in _VOLATILE_KEYS})


def resume_folder(config: DictConfig, key: str) -> Path | None:
    """The folder to continue in, None for a fresh start; ``auto`` is the newest unfinished run of this config.

    A job of a sweep has its own folder in that of the sweep, and continues there.
    """
    if config.resume is None:
        return None
    if job_of_sweep():
        folder = Path(config.output_dir)
        if not (folder / STATE_FILE).exists() or read_json(folder / STATE_FILE).get("config_key") == _NO_KEY:
            return None
        config = config.copy()
        config.resume = str(folder)
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
    for path in run_files(runs_dir):
        try:
            state = read_json(path)
        except GenrecError as error:  # a broken file elsewhere is no reason not to continue here
            log.warning("%s", error)
            continue
        ended = state.get("state") in (FINISHED, PRUNED)
        if state.get("config_key") == key and not ended and not is_locked(path.parent / LOCK_FILE):
            candidates.append((state.get("started", 0.0), path.parent))
    if not candidates:
        log.info("resume=auto: no unfinished run of this config below %s, so a new one starts", runs_dir)
        return None
    folder = max(candidates)[1]
    log.info("resume=auto: continuing %s", folder)
    return folder


def ended_job(config: DictConfig, key: str) -> RunRecord | None:
    """What a job of a sweep that is continued has reached already; None where it has still to run."""
    folder = Path(config.output_dir)
    if config.resume is None or not job_of_sweep() or not (folder / STATE_FILE).exists():
        return None
    record = read_run(folder)
    return record if record.state in (FINISHED, PRUNED) and record.run["config_key"] == key else None


def job_of_sweep() -> bool:
    """Whether this is one run of several that a single command asked for."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def choices() -> dict[str, str]:
    """The option of each config group that was chosen; empty outside a run of Hydra."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {str(name): str(option) for name, option in chosen.items() if "/" not in str(name) and option is not None}


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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / LOCK_FILE, "w") as handle:
        if not lock(handle):
            raise GenrecError(
                f"Another process is running in {folder}. Wait for it, or choose another folder (hydra.run.dir=...)."
            )
        yield


@contextmanager
def _run_log(folder: Path, secrets: Sequence[str]) -> Iterator[None]:
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", secrets))
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


def note_failure(folder: Path, config: DictConfig, error: Exception) -> None:
    """Leaves a record of a job that failed before it held a folder of its own; one that did has told of it already."""
    if (folder / STATE_FILE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder, _NO_KEY, config)
    with suppress(OmegaConfBaseException):  # what cannot be resolved may be why it failed
        run.write_config(config)
    run.fail(error)
