"""Real commands that meet with a fault: held up at a stage, killed there, short of disk or memory, told a wrong time.

A command runs in a child of one process that has imported everything already, which saves seconds for each. What is
``planted`` in such a child is Python that runs before the command begins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genrec.artifacts import read_json
from genrec.records import read_run

SERVER = """
import atexit, ctypes, json, os, resource, signal, sys, time, traceback
import genrec.pipeline, genrec.stages, genrec.trainers.tiger, genrec.trainers.simple, genrec.models.tiger
import genrec.models.sasrec, genrec.tokenizers.rqkmeans, genrec.data.encoders.tfidf, genrec.trainers.engine
import genrec.tables, genrec.sweeps.callback, genrec.report.run_page, genrec.report.command, hydra
import genrec.recommend, genrec.models.item_knn, genrec.models.popularity, genrec.models.text_knn
import sklearn.decomposition, sklearn.feature_extraction.text
import importlib

def hold(place, marker, nth=1, half=None):
    "The nth call of a function says that it has come, and waits to be killed; ``half`` does some of its work before."
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), [0]
    def held(*args, **kwargs):
        calls[0] += 1
        if calls[0] < nth:
            return original(*args, **kwargs)
        if half is not None:
            original(*args, **kwargs)
            path = str(args[half])
            os.truncate(path, os.path.getsize(path) // 2)
        open(marker, "w").close()
        while True:
            time.sleep(0.05)
    setattr(owner, last, held)

def work(request):
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    os.setpgid(0, 0)
    os.environ.update(request["environment"])
    sys.argv = ["genrec", *request["words"]]
    exec(request["planted"], {"hold": hold, "os": os, "sys": sys, "time": time, "resource": resource, "ctypes": ctypes})
    try:
        importlib.import_module(request["module"]).main()
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1

def note(path, value):
    with open(path + ".new", "w") as file:
        file.write(str(value))
    os.rename(path + ".new", path)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    request = json.loads(line)
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started these tests
        child = os.fork()
        if child == 0:
            code = work(request)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(code)
        note(request["log"] + ".pid", child)
        note(request["log"] + ".code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
"""
TINY = [
    "model=sasrec",
    "model.embedding_dim=16",
    "model.num_layers=1",
    "model.num_heads=1",
    "trainer=advanced",
    "trainer.max_epochs=3",
    "trainer.batch_size=64",
    "data.source.num_users=80",
    "data.source.num_items=50",
    "hardware=cpu",
    "hardware.num_threads=1",
    "logger=none",
    "baselines=null",
    "progress=false",
]
SECONDS = 240.0  # the process that all start from imports everything first


@dataclass
class Running:
    """A command in progress; it writes to ``log``."""

    log: Path
    pid: int

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def ended(self) -> bool:
        return Path(f"{self.log}.code").exists()

    def until(self, reached: Callable[[], Any]) -> None:
        """Waits for something to be true while the command runs."""
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert not self.ended, f"ended before: {self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(0.005)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; -9 when it was killed."""
        deadline = time.monotonic() + SECONDS
        while not self.ended:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.005)
        return int(Path(f"{self.log}.code").read_text())


@dataclass
class Commands:
    """Starts commands whose runs and cache lie below ``root``."""

    server: subprocess.Popen[str]
    root: Path
    started: list[Running] = field(default_factory=list)

    def start(
        self, *words: str, planted: str = "", module: str = "genrec.run", environment: Mapping[str, str] | None = None
    ) -> Running:
        log = self.root / f"{len(self.started)}.log"
        places = (
            [f"runs_dir={self.root / 'runs'}", f"cache_dir={self.root / 'cache'}"] if module == "genrec.run" else []
        )
        given = {word.partition("=")[0] for word in words}
        request = {
            "words": [*words, *(place for place in places if place.partition("=")[0] not in given)],
            "log": str(log),
            "planted": planted,
            "module": module,
            "environment": dict(environment or {}),
        }
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        note, deadline = Path(f"{log}.pid"), time.monotonic() + SECONDS
        while not note.exists():
            assert time.monotonic() < deadline and self.server.poll() is None
            time.sleep(0.005)
        self.started.append(Running(log, int(note.read_text())))
        return self.started[-1]

    def run(self, *words: str, **options: Any) -> tuple[int, str]:
        """Exit code and all that was printed."""
        command = self.start(*words, **options)
        return command.wait(), command.output

    def held(self, place: str, *words: str, nth: int = 1, half: int | None = None) -> Running:
        """A command that has come to the ``nth`` call of a function and stays there."""
        marker = self.root / f"marker_{len(self.started)}"
        command = self.start(*words, planted=f"hold({place!r}, {str(marker)!r}, {nth}, {half})")
        command.until(marker.exists)
        return command

    def folders(self, runs: str = "runs") -> list[Path]:
        return sorted(path.parent for path in (self.root / runs).rglob("run.json"))

    def folder(self, runs: str = "runs") -> Path:
        (only,) = self.folders(runs)
        return only


def state_of(folder: Path) -> str:
    """As ``genrec.report ls`` tells it: a run that says it is running while nobody holds its folder was killed."""
    return read_run(folder).state


def same_result(one: Path, other: Path) -> None:
    """Metrics of two runs are equal to the byte, weights to the bit."""
    assert (one / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()
    for name in ("best_model.pt", "final_model.pt"):
        left, right = (torch.load(place / "checkpoints" / name, weights_only=True) for place in (one, other))
        assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left), name


def unfinished_files(root: Path) -> list[Path]:
    """What ``atomic_path`` has not finished."""
    return [path for path in root.rglob(".*") if path.is_file() and path.name != ".lock"]


def sentence(output: str) -> str:
    """The last line that was printed; it is no traceback."""
    assert "Traceback" not in output and "Error executing job" not in output, output
    return output.strip().splitlines()[-1]


def history(folder: Path) -> list[dict[str, float]]:
    return read_json(folder / "history.json")
