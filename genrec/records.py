"""What a run or a sweep has left in its folder, read back without building anything: neither torch nor Hydra is needed.

The files are written by ``genrec.run_folder`` and ``genrec.pipeline``; every one but ``run.json`` may be missing, since
a run may be young, killed or failed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from genrec.annotations import accepts, as_yaml, checkable, describe
from genrec.artifacts import is_locked, of_kind, read_json, read_yaml
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger("genrec.report")

RUN_FILE = "run.json"
SWEEP_FILE = "sweep.json"
HISTORY_FILE = "history.json"
USERS_FILE = "test_users.parquet"
ROWS_FILE = "test_rows.parquet"
SAMPLES_FILE = "samples.json"
RESOURCES_FILE = "resources.json"
REPORT_FILE = "report.html"
LOCK_FILE = ".lock"

RUNNING, FINISHED, FAILED, PRUNED, KILLED = "running", "finished", "failed", "pruned", "killed"
_TIME = Annotated[float, Ge(-62_135_510_400), Le(253_402_214_400)] | None  # seconds since 1970, years 1 to 9999
_FACTS: dict[str, Any] = {  # of run.json, each of which may be missing
    **dict.fromkeys(("started", "ended"), _TIME),
    **dict.fromkeys(("state", "error", "model", "data", "monitor", "direction", "config_key"), str | None),
    "best_epoch": int | None,
    "choices": dict | None,
}
_SWEEP_FACTS: dict[str, Any] = {  # what sweep.json holds, where it holds it
    "state": str | None, "started": _TIME, "ended": _TIME, "seconds": float | None,
    "command": list[str] | None, "objectives": list[list[str]] | None, "scales": dict[str, str] | None,
    "key": str | None,
}  # fmt: skip
_NODES = ("model", "trainer", "data", "split", "optimizer", "scheduler", "baselines", "callbacks", "logger")
_CONFIG: dict[str, Any] = {**dict.fromkeys(_NODES, dict | None), "runs_dir": str | None, "seed": int | None}
_SAMPLE: dict[str, Any] = {
    "history": list[dict] | None, "targets": list[dict] | None, "recommended": list[dict] | None,
    "history_length": int | None,
}  # fmt: skip
_ENVIRONMENT: dict[str, Any] = {
    "git": dict | None, "host": dict | None, "versions": dict | None, "command": list | None, "config_key": str | None,
}  # fmt: skip
_NUMBERS = dict[str, float | None]
_STAGES = dict[str, dict[str, float]]
_NAMED = ("user_id", "group")  # columns of tables that may hold anything
STATES = (RUNNING, FINISHED, FAILED, PRUNED, KILLED)
_OWN, _LIGHTNINGS = "genrec.trainers.callbacks.", "pytorch_lightning.callbacks."
_WATCHING = {
    *(f"{_OWN}{name}" for name in (
        "codebook_usage.CodebookUsage", "gradient_norm.GradientNorm", "memory_use.MemoryUse", "profiler.ProfilerWindow",
        "sample_predictions.SamplePredictions",
    )),
    *(f"{_LIGHTNINGS}{name}" for name in (
        "DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar",
        "TQDMProgressBar",
    )),
}  # fmt: skip
# Options of ``conf/callbacks`` that change nothing; each of genrec's own is called after its module, as in a config.
WATCHING_OPTIONS = {"default", "none", *(name.split(".")[-2] for name in _WATCHING if name.startswith(_OWN))}


@dataclass(frozen=True)
class RunRecord:
    """A run folder. ``state`` is one of STATES: a run that says it is running while no process holds its folder was
    killed. Times are seconds since 1970."""

    folder: Path
    state: str
    run: Mapping[str, Any]

    @property
    def started(self) -> float:
        return float(self.run.get("started") or 0.0)

    @property
    def ended(self) -> float | None:
        """When it ended, or when it last wrote its state; None while it runs."""
        return self.run.get("ended")

    @property
    def error(self) -> str | None:
        """Why it failed, in one sentence."""
        return self.run.get("error")

    @property
    def model(self) -> str:
        """The short name of the model, such as ``tiger``."""
        return str(self.run.get("model") or _module(self.config.get("model")))

    @property
    def data(self) -> str:
        return str(self.run.get("data") or _module(self.config.get("data")))

    @property
    def monitor(self) -> str | None:
        """The metric that chose the weights, such as ``val/recall@10``."""
        return self.run.get("monitor")

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were tested; 0 where it is the last because nothing was selected, None before the end
        and of runs that do not tell."""
        return self.run.get("best_epoch")

    @property
    def direction(self) -> str:
        """ "min" or "max": what is better for the monitored metric."""
        return str(self.run.get("direction", "max"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain values; empty where the run ended before it was written."""
        path = self.folder / "config.yaml"
        found = _read_yaml(path, dict) or {}
        _check_facts(_CONFIG, found, path)
        _check_facts({"source": dict | None}, found.get("data") or {}, path)
        return found

    @cached_property
    def overrides(self) -> dict[str, str]:
        """What was changed on the command line: ``{"optimizer.lr": "1e-3"}``."""
        return {name.lstrip("+~"): value for name, _, value in (word.partition("=") for word in self.words)}

    @cached_property
    def words(self) -> list[str]:
        """The overrides as they were given: ``+`` and ``~`` included."""
        return [str(entry) for entry in _read_yaml(self.folder / "overrides.yaml", list) or []]

    @cached_property
    def final(self) -> dict[str, float]:
        """The final metrics by name; empty before the end, and of a run that failed."""
        if self.state not in (FINISHED, PRUNED):  # an earlier attempt in this folder may have left some
            return {}
        path = self.folder / "metrics.json"
        return of_kind(_NUMBERS, (_read_json(path, dict) or {}).get("final", {}), path)

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """A row per epoch so far: ``epoch``, ``step``, ``seconds``, ``train/lr`` and what was measured. Not every epoch
        measures everything."""
        return _read_json(self.folder / HISTORY_FILE, list[dict[str, float | None]]) or []

    @cached_property
    def environment(self) -> dict[str, Any]:
        path = self.folder / "environment.json"
        found = _read_json(path, dict) or {}
        prints = {name: str | None for name in found if name.endswith("_fingerprint")}
        _check_facts({**_ENVIRONMENT, **prints}, found, path)
        _check_facts({"commit": str | None}, found.get("git") or {}, path)
        return found

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage and their ``total``."""
        return _read_json(self.folder / "timing.json", dict[str, float]) or {}

    @cached_property
    def resources(self) -> dict[str, Any]:
        """``peak_resident_bytes`` of the process, ``peak_device_bytes`` of a GPU, ``parameters`` of the model; and what
        ``stages`` gives, with ``stage_peaks``: "own", or "so_far" where no peak of a stage alone could be measured."""
        path = self.folder / RESOURCES_FILE
        found = _read_json(path, dict[str, Any]) or {}
        of_kind(_NUMBERS, {name: value for name, value in found.items() if name not in ("stages", "stage_peaks")}, path)
        stages = of_kind(_STAGES, found.get("stages", {}), path)
        of_kind(_NUMBERS, {name: stage.get("seconds", "nothing") for name, stage in stages.items()}, path)
        return found

    @cached_property
    def stages(self) -> dict[str, dict[str, float]]:
        """``seconds``, ``peak_resident_bytes`` and perhaps ``peak_device_bytes`` of each stage of the run, in order."""
        return self.resources.get("stages", {})

    @cached_property
    def tokenizer(self) -> dict[str, float]:
        """The quality of the semantic IDs, such as ``usage_rate/level_0``."""
        return _read_json(self.folder / "tokenizer_report.json", dict[str, float]) or {}

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """A few test users: ``user_id``, ``history``, ``targets`` and ``recommended``, lists of ``item_id`` and
        ``title``."""
        path = self.folder / SAMPLES_FILE
        found = _read_json(path, list[dict]) or []
        for user in found:
            _check_facts(_SAMPLE, user, path)
        return found

    def measured(self, name: str) -> float | None:
        """A finite number of the run by its name: a final metric, ``seconds/STAGE``, ``resources/NAME``,
        ``peak/STAGE`` (resident bytes) or ``tokenizer/NAME``; None where there is none."""
        kind, _, rest = name.partition("/")
        peaks = {stage: costs.get("peak_resident_bytes") for stage, costs in self.stages.items()}
        places = {"seconds": self.seconds, "resources": self.resources, "tokenizer": self.tokenizer, "peak": peaks}
        value = self.final.get(name, places.get(kind, {}).get(rest))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def users(self) -> pl.DataFrame | None:
        """One row per test user of a retrieval run: ``user_id``, ``history_length``, ``num_targets``,
        ``target_popularity`` (training interactions of the held-out items, their mean), then the metrics such as
        ``recall@10`` and those of the baselines, ``baseline/item_knn/recall@10``. None where there is no such file."""
        return _read_parquet(self.folder / USERS_FILE)

    def rows(self) -> pl.DataFrame | None:
        """One row per test row of a ranking run: ``label/<task>``, ``prediction/<task>`` and, where groups are known,
        ``group``; baselines as ``baseline/<name>/prediction/<task>``. None where there is no such file."""
        return _read_parquet(self.folder / ROWS_FILE)


@dataclass(frozen=True)
class SweepRecord:
    """The folder of a sweep and the runs in it, in the order of their numbers."""

    folder: Path
    sweep: Mapping[str, Any]
    runs: tuple[RunRecord, ...]

    @property
    def state(self) -> str:
        """running, finished, or killed: it says that it is running and no process holds the folder."""
        state = str(self.sweep.get("state", FINISHED))
        return KILLED if state == RUNNING and not is_locked(self.folder / LOCK_FILE) else state

    @property
    def command(self) -> list[str]:
        """The words after ``python -m genrec.run`` that started it."""
        return list(self.sweep.get("command") or [])

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """``(metric, "min" or "max")`` of what was searched for: the monitored metric, or several."""
        known = self.sweep.get("objectives")
        if known:
            return [(name, direction) for name, direction in known]
        return [(run.monitor, run.direction) for run in self.runs if run.monitor][:1]

    @property
    def scales(self) -> dict[str, str]:
        """ "log" or "linear" of the parameters that a search draws from ranges; empty for a grid."""
        return dict(self.sweep.get("scales") or {})

    @property
    def swept(self) -> list[str]:
        """The overrides that differ between the runs, in the order given."""
        names = dict.fromkeys(name for run in self.runs for name in run.overrides)
        return [name for name in names if len({run.overrides.get(name) for run in self.runs}) > 1]


def is_run(folder: Path) -> bool:
    return (Path(folder) / RUN_FILE).is_file()


def is_sweep(folder: Path) -> bool:
    """Whether ``folder`` holds the runs of a sweep; those before ``sweep.json`` was written are known by their runs."""
    folder = Path(folder)
    return (folder / SWEEP_FILE).is_file() or (not is_run(folder) and any(folder.glob(f"[0-9]*/{RUN_FILE}")))


def read_run(folder: Path) -> RunRecord:
    """The record of a run; ``GenrecError`` where ``folder`` is no run folder or its ``run.json`` is broken."""
    folder = Path(folder)
    if not is_run(folder):
        raise GenrecError(f"{folder} is not a run folder: it has no {RUN_FILE}. Give a folder below outputs/.")
    run = read_json(folder / RUN_FILE, dict)
    for name, kind in _FACTS.items():
        if not accepts(checkable(kind), run.get(name)):
            told = f"{as_yaml(run[name])[:60]} as {name}, where {describe(checkable(kind))} is expected"
            raise GenrecError(f"{folder / RUN_FILE} is not as genrec wrote it: it has {told}.")
    state = str(run.get("state"))
    if state == RUNNING and not is_locked(folder / LOCK_FILE):
        state = KILLED
    return RunRecord(folder, state, run)


def read_sweep(folder: Path) -> SweepRecord:
    """The record of a sweep; ``GenrecError`` where ``folder`` holds none. A run whose ``run.json`` is broken is told of
    in the log and left out."""
    folder = Path(folder)
    if not is_sweep(folder):
        raise GenrecError(f"{folder} is not the folder of a sweep: it has no {SWEEP_FILE} and no runs. Give one below "
                          "outputs/multirun/.")  # fmt: skip
    ordered = sorted(
        _readable(folder.glob(f"*/{RUN_FILE}")),
        key=lambda run: (not run.folder.name.isdecimal(), _number(run.folder.name), run.folder.name),
    )
    path = folder / SWEEP_FILE
    return SweepRecord(folder, sweep_facts(path) if path.exists() else {}, tuple(ordered))


def sweep_facts(path: Path) -> dict[str, Any]:
    """What ``sweep.json`` holds; ``GenrecError`` where somebody has changed it."""
    facts = read_json(path, dict)
    _check_facts(_SWEEP_FACTS, facts, path)
    if any(len(pair) != 2 for pair in facts.get("objectives") or []):
        raise GenrecError(f"{path} is not as genrec wrote it: an objective is a metric and a direction.")
    return facts


def find_runs(root: Path) -> Iterator[RunRecord]:
    """Every run below ``root``; one whose ``run.json`` is broken is told of in the log and left out."""
    yield from _readable(run_files(root))


def _readable(files: Iterable[Path]) -> Iterator[RunRecord]:
    for path in files:
        try:
            yield read_run(path.parent)
        except GenrecError as error:
            log.warning("%s", error)


def run_files(root: Path) -> list[Path]:
    """Every ``run.json`` below ``root``, without those in hidden folders: what is being deleted is hidden first."""
    root = Path(root)
    found = sorted(root.glob(f"**/{RUN_FILE}"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def _number(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _module(node: Any) -> str:
    """``genrec.models.tiger.Tiger`` as ``tiger``."""
    target = node.get("_target_", "") if isinstance(node, dict) else ""
    return target.rsplit(".", 2)[-2] if target.count(".") >= 2 else target or "?"


def _check_facts(kinds: Mapping[str, Any], facts: Mapping[str, Any], path: Path) -> None:
    """``GenrecError`` where a fact of a file is of another kind."""
    for name, kind in kinds.items():
        of_kind(kind, facts.get(name), path)


def _read_json(path: Path, kind: Any) -> Any:
    return read_json(path, kind) if path.exists() else None


def _read_yaml(path: Path, kind: Any) -> Any:
    return read_yaml(path, kind | None) if path.exists() else None


def _read_parquet(path: Path) -> pl.DataFrame | None:
    import polars as pl

    if not path.exists():
        return None
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())
        raise GenrecError(f"{path} cannot be read ({reason}). Delete it and run again.") from None
    words = [name for name, kind in table.schema.items() if not kind.is_numeric() and name not in _NAMED]
    if words:
        raise GenrecError(f"{path} is not as genrec wrote it: {words[0]} holds no numbers. Delete it and run again.")
    return table


def deciding_callbacks(callbacks: Any) -> dict[str, Any]:
    """Of the node ``callbacks`` of a config those that may change what a run computes: all but such as are known only
    to watch it."""
    entries = callbacks.items() if isinstance(callbacks, Mapping) else ()
    return {
        str(name): node
        for name, node in entries
        if node is not None and not (isinstance(node, Mapping) and str(node.get("_target_")) in _WATCHING)
    }
