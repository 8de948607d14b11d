"""What a sweep leaves behind: ``sweep.json`` while it runs, a table, ``sweep.csv`` and a page when it ends."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from genrec.artifacts import lock, read_yaml, write_json, write_text
from genrec.contracts import GenrecError
from genrec.disk import StorageError, refusals
from genrec.masking import masked, masked_words, scrub, secret_values
from genrec.records import (
    FINISHED,
    LOCK_FILE,
    REPORT_FILE,
    RUNNING,
    SWEEP_FILE,
    RunRecord,
    SweepRecord,
    read_sweep,
    sweep_facts,
)
from genrec.sweeps.resume import sweep_key

log = logging.getLogger("genrec.run")

_HYDRAS_FILE = "multirun.yaml"
_RAISES = "HYDRA_FULL_ERROR"  # Hydra then passes on what a sweeper or a launcher raises, which ``told`` tells
_TRACE_FILE = "launch_error.txt"
PAGE_SECONDS = 30.0  # between two pages of a sweep that runs


class SweepTable(Callback):
    """Holds the folder of a multirun while it runs, so that no other goes on in it, and tells what came of it."""

    ended: ClassVar[list[SweepRecord]] = []  # of this process, for its exit code
    begun: ClassVar[list[Path]] = []  # folders of this process

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        HydraConfig.instance().set_config(config)  # the name of the folder may ask for it
        _make(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._begun = time.monotonic()
        folder = Path(config.hydra.sweep.dir)
        _make(folder)
        type(self).begun.append(folder)
        os.environ[_RAISES] = "1"
        self._lock = open(folder / LOCK_FILE, "w")  # noqa: SIM115 (held until the process ends)
        if not lock(self._lock):
            log.error("Another sweep runs in %s. Wait for it, or name another folder (hydra.sweep.dir=...).", folder)
            sys.exit(1)
        path = folder / SWEEP_FILE
        words = list(sys.argv[1:])
        key = sweep_key(words)
        earlier = _earlier(path)
        if earlier.get("key", key) != key:  # its runs would be overwritten, or stand in the table of this one
            command = " ".join(earlier.get("command") or [])
            log.error("%s holds another sweep: python -m genrec.run %s", folder, command)
            log.error("Name another folder (hydra.sweep.dir=...), or remove that one.")
            sys.exit(1)
        record = {
            "state": RUNNING,
            "started": earlier.get("started") or time.time(),
            "ended": None,
            "seconds": earlier.get("seconds") or 0.0,  # of what was killed and is continued
            "command": earlier.get("command") or masked_words(words),
            "key": key,
            "sweeper": str(config.hydra.runtime.choices.get("hydra/sweeper") or "basic"),
            "objectives": objectives(config),
            "scales": scales(config),
        }
        write_json(path, record)

    def __getstate__(self) -> dict[str, Any]:
        """Launchers send callbacks to their workers; the lock stays here."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra.types import RunMode

        if config.hydra.mode == RunMode.MULTIRUN:
            _mask_multirun(Path(config.hydra.sweep.dir))

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Keeps the page up to date, for whoever watches, but not so often that it costs the runs time."""
        from hydra.types import RunMode

        if config.hydra.mode != RunMode.MULTIRUN:
            return
        folder = Path(config.hydra.sweep.dir)
        page = folder / REPORT_FILE
        if not page.exists() or time.time() - page.stat().st_mtime > PAGE_SECONDS:
            _write_page(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        _mask_multirun(folder)
        path = folder / SWEEP_FILE
        state: dict[str, Any] = sweep_facts(path) if path.exists() else {"objectives": objectives(config)}
        seconds = (state.get("seconds") or 0.0) + time.monotonic() - getattr(self, "_begun", time.monotonic())
        write_json(path, {**state, "state": FINISHED, "ended": time.time(), "seconds": round(seconds, 2)})
        record = read_sweep(folder)
        type(self).ended.append(record)
        if record.runs:
            from genrec.sweeps.table import print_answer

            print_answer(record, write_sweep(record), _write_page(folder))


def _earlier(path: Path) -> dict[str, Any]:
    """What a sweep that was killed has left; Hydra would go on where this is a file that nobody can read."""
    try:
        return sweep_facts(path) if path.exists() else {}
    except GenrecError as error:
        log.error("%s Name another folder (hydra.sweep.dir=...), or remove that file.", error)
        sys.exit(1)


def _make(folder: Path) -> None:
    """Makes the folder of a run or a sweep; Hydra would take its faults for faults of genrec."""
    try:
        with refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except StorageError as error:
        log.error("%s", error)
        sys.exit(1)


def told(error: Exception) -> bool:
    """Tells what a sweeper or a launcher has raised, of which no run is the cause; False where no sweep had begun."""
    if not SweepTable.begun:
        return False
    folder = SweepTable.begun[-1]
    write_text(folder / _TRACE_FILE, "".join(traceback.format_exception(error)))
    reason = " ".join(str(error).split())[:500]
    log.error("The sweeper or the launcher of %s failed: %s (%s).", folder, reason, type(error).__name__)
    log.error("Correct hydra.sweeper.* and hydra.launcher.*, or leave them out; all of it is in %s.", _TRACE_FILE)
    return True


def scales(config: DictConfig) -> dict[str, str]:
    """ "log" or "linear" of what is drawn from ranges, ``tag(log, interval(1e-4, 1e-2))`` or ``interval(0, 0.5)``."""
    words = (str(word).partition("=") for word in config.hydra.get("overrides", {}).get("task", []))
    ranges = {str(name): str(value) for name, value in (config.hydra.get("sweeper", {}).get("params") or {}).items()}
    ranges.update({name.lstrip("+"): value for name, _, value in words})
    drawn = {name: value for name, value in ranges.items() if "interval(" in value or value.startswith("range(")}
    return {name: "log" if re.match(r"tag\(\s*log\b", value) else "linear" for name, value in drawn.items()}


def _mask_multirun(folder: Path) -> None:
    """What Hydra's own sweeper has written of the command and the config, without secrets."""
    path = folder / _HYDRAS_FILE
    if not path.exists():
        return
    written: dict[str, Any] = read_yaml(path)
    shown, words = masked(written), []
    for kind in shown.get("hydra", {}).get("overrides", {}).values():
        words += kind
        kind[:] = masked_words(kind)
    secrets = secret_values(written, words)  # Hydra joins the words to one text as well
    text = scrub(OmegaConf.to_yaml(OmegaConf.create(shown)), secrets)
    if text != path.read_text(encoding="utf-8"):
        write_text(path, text)


def objectives(config: DictConfig) -> list[list[str]]:
    """The metrics that the sweep is about and what is better of each: those of the search, or the monitored one."""
    from genrec.directions import metric_mode
    from genrec.trainers.base import metric_name

    sweeper = config.hydra.get("sweeper") or {}
    named = sweeper.get("objectives")
    if named:
        directions = sweeper.get("directions") or ["auto"] * len(named)
    else:
        named = [config.get("monitor") or config.trainer.get("monitor")]
        directions = [config.trainer.get("mode", "auto")]
    chosen = []
    for name, direction in zip(named, directions, strict=False):
        metric = metric_name(str(name))
        known = {"minimize": "min", "maximize": "max"}.get(str(direction), str(direction))
        chosen.append([metric, metric_mode(metric) if known == "auto" else known])
    return chosen


def write_sweep(record: SweepRecord) -> Path:
    """``sweep.csv``: one row per job, what was swept first, then every final metric."""
    names = record.swept
    metrics = sorted({name for run in record.runs for name in run.final})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "state", *names, *metrics])
    for run in record.runs:
        cells: list[Any] = [run.overrides.get(name, "") for name in names]
        writer.writerow([run.folder.name, run.state, *cells, *(run.final.get(name, "") for name in metrics)])
    path = record.folder / "sweep.csv"
    write_text(path, text.getvalue())
    return path


def best_first(record: SweepRecord) -> list[RunRecord]:
    """The runs by the first objective; those without it come last, in the order of their numbers."""
    if not record.objectives:
        return list(record.runs)
    metric, direction = record.objectives[0]
    return sorted(record.runs, key=lambda run: _rank(run, metric, direction))


def _rank(run: RunRecord, metric: str, direction: str) -> float:
    """Smaller is better."""
    value = run.measured(metric)
    if value is None or run.state != FINISHED:
        return float("inf")
    return value if direction == "min" else -value


def sweep_columns(run: RunRecord, metrics: Sequence[str]) -> list[str]:
    """The metrics worth a column: what the sweep is about, then the test metrics."""
    chosen = [metric for metric in metrics if run.measured(metric) is not None]
    return [*chosen, *(name for name in run.final if name.startswith("test/") and name not in chosen)][:6]


def _write_page(folder: Path) -> Path | None:
    """The page of the sweep; a fault in it takes nothing from the runs."""
    try:
        from genrec.report.sweep_page import write_sweep_page

        return write_sweep_page(folder)
    except Exception as error:
        log.warning("The page of %s could not be written: %s", folder, error)
        return None
