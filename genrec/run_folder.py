"""The folder of a run: who holds it, how the run in it stands, and which unfinished one to continue."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import genrec
from genrec.artifacts import fingerprint, is_locked, lock, read_json, remove_unfinished, write_json, write_text
from genrec.contracts import GenrecError
from genrec.disk import refusals
from genrec.interruption import Interrupted
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
    deciding_callbacks,
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
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux
_NO_KEY = ""  # of a job that failed before its config was known: there is nothing to continue
_VOLATILE_KEYS = (
    "output_dir",
    "runs_dir",
    "cache_dir",
    "resume",
    "seeds",
    "logger",
    "progress",
    "data_root",
    "allow_targets",
)  # compute nothing
_ONE_PROCESS = {"devices": 1, "strategy": "auto", "launcher": "auto"}  # as many as there are compute the same


class RunFolder:
    """A run folder that this process holds while the block of ``held`` runs; ``run.json`` says how it ended.

    What is secret in ``config`` and in the environment is written nowhere in it.
    """

    def __init__(self, path: Path, key: str, config: DictConfig | None = None) -> None:
        self.path = Path(path)
        self.key = key
        self.secrets = [*_secrets_of(config), *secrets_of_environment()]
        self._ended = False

    @contextmanager
    def held(self, *, resumed: bool = False) -> Iterator[None]:
        """Two processes never write into one folder, and what genrec logs meanwhile is copied into ``run.log``."""
        with refusals(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path), self._cleared(resumed), _run_log(self.path, self.secrets):
            self._ended = False
            slurm = {"slurm_job": _slurm_job()} if _slurm_job() else {}
            self._mark(RUNNING, pid=os.getpid(), host=socket.gethostname(), **slurm)
            try:
                yield
            except BaseException as error:
                self.fail(error)
                raise
            self.end(FINISHED)

    def end(self, state: str, **facts: Any) -> None:
        """Says how the run ended, once; ``facts`` are added to what ``run.json`` tells of it."""
        if not self._ended:
            began = read_json(self.path / STATE_FILE).get("started", 0.0) if (self.path / STATE_FILE).exists() else 0.0
            self._mark(state, ended=max(time.time(), began), **facts)  # the clock may have been set back meanwhile
            self._ended = True

    def fail(self, error: BaseException) -> None:
        """Says why the run ended before its time; one that was interrupted counts as killed."""
        text = scrub(str(error), self.secrets) or type(error).__name__
        with suppress(GenrecError):  # where nothing can be written, this cannot either: the run reads as killed
            self._fail(error, text)

    def _fail(self, error: BaseException, text: str) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.end(KILLED, error="Interrupted from the keyboard.")
        elif isinstance(error, Interrupted):
            self.end(KILLED, error=text)
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
        known = read_json(path, dict) if path.exists() else {"started": time.time(), **_uptime()}
        known = {name: value for name, value in known.items() if name not in ("ended", "error")}
        write_json(path, {**known, "state": state, "config_key": self.key, **facts})

    def write_config(self, config: DictConfig) -> None:
        """The resolved config, and the overrides that led to it; secrets are left out of both, and that a run is
        continued is no part of what it is."""
        plain = masked(OmegaConf.to_container(config, resolve=True))
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
        overrides = [word for word in masked_words(words_given()) if word.partition("=")[0].lstrip("+") != "resume"]
        write_text(self.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))


def _secrets_of(config: DictConfig | None) -> list[str]:
    """The secrets of a config, as they are written and as they resolve, ``${oc.env:KEY}`` for one."""
    if config is None:
        return []
    found = secret_values(_plain(config, resolve=False))
    try:
        return list(dict.fromkeys([*secret_values(_plain(config, resolve=True)), *found]))
    except OmegaConfBaseException:  # something is missing, as the check will say
        return found


def _plain(config: DictConfig, *, resolve: bool) -> Any:
    return OmegaConf.to_container(config, resolve=resolve)


def config_key(config: DictConfig) -> str:
    """A fingerprint of what a run computes, blind to where it writes and how it is watched."""
    copy = config.copy()
    copy.output_dir = ""
    copy.progress = True  # nodes of the data refer to it
    if copy.get("data") and "storage_options" in copy.data:
        copy.data.storage_options = None  # who asks, and where: the data are known by their address
    plain: Any = OmegaConf.to_container(copy, resolve=True)
    hardware = plain.get("hardware")
    if hardware:
        hardware.update({name: value for name, value in _ONE_PROCESS.items() if name in hardware})
    callbacks = deciding_callbacks(plain.pop("callbacks", None))
    computing = {name: value for name, value in plain.items() if name not in _VOLATILE_KEYS}
    return fingerprint({**computing, "callbacks": callbacks} if callbacks else computing)


def resume_folder(config: DictConfig, key: str) -> Path | None:
    """The folder to continue in, None for a fresh start; ``auto`` is the newest unfinished run of this config.

    A job of a sweep has its own folder in that of the sweep, and continues there.
    """
    if config.resume is None:
        return None
    if job_of_sweep():
        folder = Path(config.output_dir)
        if not (folder / STATE_FILE).exists() or read_json(folder / STATE_FILE, dict).get("config_key") == _NO_KEY:
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
    if read_json(folder / STATE_FILE, dict).get("config_key") != key:
        raise GenrecError(
            f"{folder} was started with another config, so continuing it would mix two experiments. "
            f"Repeat its overrides (they stand in {folder / 'overrides.yaml'}) or start a new run."
        )
    return folder


def _newest_unfinished(runs_dir: Path, key: str) -> Path | None:
    candidates = []
    for path in run_files(runs_dir):
        try:
            state = read_json(path, dict)
        except GenrecError as error:  # a broken file elsewhere is no reason not to continue here
            log.warning("%s", error)
            continue
        ended = state.get("state") in (FINISHED, PRUNED)
        if state.get("config_key") == key and not ended and not is_locked(path.parent / LOCK_FILE):
            candidates.append((path.parent, state))
    if not candidates:
        log.info("resume=auto: no unfinished run of this config below %s, so a new one starts", runs_dir)
        return None
    folder = reduce(_later, candidates)[0]
    log.info("resume=auto: continuing %s", folder)
    return folder


def _later(one: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Of two runs the one that this job of Slurm had begun, else the one that was started later: by the time since the
    machine was started where both tell it, because clocks are set back."""
    mine = [(state.get("slurm_job") or None) == _slurm_job() for _, state in (one, other)]
    if _slurm_job() is not None and mine[0] != mine[1]:
        return one if mine[0] else other
    boots = [state.get("boot") for _, state in (one, other)]
    clock = "uptime" if boots[0] is not None and boots[0] == boots[1] else "started"
    return max(one, other, key=lambda run: (run[1].get(clock, 0.0), run[0]))


def _uptime() -> dict[str, Any]:
    """Which start of the machine this is and the seconds since then, which no setting of the clock changes; empty where
    the system does not tell."""
    try:
        boot = _BOOT.read_text(encoding="utf-8").strip()
        return {"boot": boot, "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}
    except (OSError, AttributeError):
        return {}


def _slurm_job() -> str | None:
    return os.environ.get("SLURM_JOB_ID")


def unused_folder(config: DictConfig) -> Path:
    """The folder of a new run. One that nobody has named is called after the second in which the run begins: where
    another began in the same second, or the clock was set back, the next free ``_2``, ``_3`` ... is taken."""
    named = Path(config.output_dir)
    if job_of_sweep() or not _named_by_time(named):
        return named
    for number in itertools.count(1):
        folder = named if number == 1 else named.with_name(f"{named.name}_{number}")
        with refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                os.close(os.open(folder / LOCK_FILE, os.O_CREAT | os.O_EXCL))  # one of two at the same moment makes it
            except FileExistsError:
                continue
        if not (folder / STATE_FILE).exists():
            return folder
    raise AssertionError("numbers do not end")


def _named_by_time(folder: Path) -> bool:
    """Whether Hydra has named the folder by itself."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized() or Path(HydraConfig.get().runtime.output_dir) != folder.absolute():
        return False
    return not any(word.lstrip("+").startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra)


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


def words_given() -> list[str]:
    """The overrides as they were given, their interpolations too; empty outside a run of Hydra."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(words)


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
    with refusals(folder):
        handle = open(folder / LOCK_FILE, "w")  # noqa: SIM115 (closed below)
    with handle:
        if not lock(handle):
            raise GenrecError(
                f"Another process is running in {folder}. Wait for it, or choose another folder (hydra.run.dir=...)."
            )
        yield


class _RunLog(logging.FileHandler):
    """A log that a full disk cuts short; why is told where the disk is needed."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def _run_log(folder: Path, secrets: Sequence[str]) -> Iterator[None]:
    with refusals(folder / "run.log"):
        handler = _RunLog(folder / "run.log", encoding="utf-8")
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
