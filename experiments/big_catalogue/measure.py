"""The runs of the study: each the real command in a process of its own, its costs read from what it recorded.

What stands in the results is not measured again, so a study that was interrupted goes on where it was.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.big_catalogue.catalogue import Catalogue
from experiments.speed.machine import CpuClock
from genrec.artifacts import atomic_path
from genrec.contracts import GenrecError
from genrec.data.storage import is_saved
from genrec.records import read_run
from genrec.run_folder import git_state

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.csv"
DECODING = "a batch of 256"  # recommended to; a stage of the results
WHOLE = "whole run"
COLUMNS = ("items", "users", "run", "stage", "seconds", "peak_bytes", "others_share", "threads", "commit")
_USERS_PER_ITEM, _LENGTH = 0.3, 10
_HELD_OUT = 2_000  # interactions of the test, and as many of the validation before it
Row = dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run by its name, and the words of the command line that are its own."""

    name: str
    words: tuple[str, ...]


_STEPS = ("trainer.max_steps=50", "trainer.max_eval_users=500")
_TRAINED = ("tokenizer=rqvae", "tokenizer.trainer.max_epochs=1")
_SAMPLED = ("model.loss=listwise", "model.sparse_gradients=true", "optimizer=rowwise_adagrad")
RUNS = (
    Run("tiger", ("model=tiger", "trainer=tiger", "tokenizer=rqkmeans", *_STEPS)),
    Run("tiger_rqvae", ("model=tiger", "trainer=tiger", *_TRAINED, *_STEPS, "baselines=null")),
    Run("tiger_item", ("model=tiger_item", "trainer=tiger", "tokenizer=rqkmeans", *_STEPS, "baselines=null")),
    Run("rpg", ("model=rpg", "trainer=advanced", "tokenizer=opq", *_STEPS, "baselines=null")),
    Run("sasrec_sampled", ("model=sasrec", "trainer=advanced", *_SAMPLED, *_STEPS, "baselines=null")),
    Run("sasrec_full", ("model=sasrec", "trainer=advanced", *_STEPS, "baselines=null")),
)


def measure(sizes: Sequence[int], place: Path, *, threads: int, names: Sequence[str] = ()) -> None:
    """Adds to the results what they lack for catalogues of these sizes; data and runs lie below ``place``."""
    for num_items in sizes:
        users = max(int(num_items * _USERS_PER_ITEM), 2 * _HELD_OUT)
        for run in RUNS:
            if (names and run.name not in names) or _known(num_items, run):
                continue
            data = _data(place, num_items, users)
            clock = CpuClock.now()
            folder = _trained(run, data, users, place, threads)
            share = clock.foreign_share(CpuClock.now(), os.cpu_count() or 1)
            seconds = _decoded(folder, threads)
            _add(_rows(run, num_items, users, folder, seconds, share, threads))


def _known(num_items: int, run: Run) -> bool:
    return any((row["items"], row["run"]) == (str(num_items), run.name) for row in read_results())


def _data(place: Path, num_items: int, users: int) -> Path:
    folder = place / f"catalogue_{num_items}"
    if not is_saved(folder):
        Catalogue(num_items=num_items, num_users=users, length=_LENGTH).write(folder)
    return folder


def _trained(run: Run, data: Path, users: int, place: Path, threads: int) -> Path:
    """The folder of the finished run. What an earlier one left is done again: its stages would be found cached."""
    folder = place / "runs" / data.name / run.name
    cache = folder.with_name(f"{run.name}_cache")
    for old in (folder, cache):
        shutil.rmtree(old, ignore_errors=True)
    shares = [1 - parts * _HELD_OUT / (users * _LENGTH) for parts in (2, 1)]
    words = [
        "data=folder", f"data.path={data}", "encoder=tfidf", "split=global_time", f"split.val_from={shares[0]}",
        f"split.test_from={shares[1]}", *run.words, f"hydra.run.dir={folder}", f"runs_dir={place}", "hardware=cpu",
        f"cache_dir={cache}", f"hardware.num_threads={threads}", "logger=none", "progress=false",
    ]  # fmt: skip
    done = _python("-m", "genrec.run", *words, threads=threads)
    if done.returncode != 0:
        raise GenrecError(f"{run.name} on {data.name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder


def _decoded(folder: Path, threads: int) -> float:
    done = _python("-m", "experiments.big_catalogue.decoding", str(folder), threads=threads)
    if done.returncode != 0:
        raise GenrecError(f"{folder} could not be decoded with:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _python(*words: str, threads: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


def _rows(run: Run, num_items: int, users: int, folder: Path, decoding: float, share: float, threads: int) -> list[Row]:
    record = read_run(folder)
    costs: dict[str, tuple[float, float | None]] = {
        name: (cost["seconds"], cost["peak_resident_bytes"])
        for name, cost in record.stages.items()
        if cost["seconds"] > 0  # a run without baselines has the stage all the same
    }
    costs[WHOLE] = record.seconds["total"], record.resources["peak_resident_bytes"]
    costs[DECODING] = decoding, None
    known = {
        "items": str(num_items),
        "users": str(users),
        "run": run.name,
        "others_share": f"{share:.3f}",
        "threads": str(threads),
        "commit": ((git_state() or {}).get("commit") or "")[:10],
    }
    return [
        {**known, "stage": stage, "seconds": f"{seconds:.3f}", "peak_bytes": "" if peak is None else f"{peak:.0f}"}
        for stage, (seconds, peak) in costs.items()
    ]


def read_results(path: Path = RESULTS) -> list[Row]:
    """The rows so far; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _add(rows: Sequence[Row]) -> None:
    order = [run.name for run in RUNS]
    known = sorted([*read_results(), *rows], key=lambda row: (order.index(row["run"]), int(row["items"])))
    with atomic_path(RESULTS) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as stream:
        writer: Any = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(known)
