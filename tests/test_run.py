"""The command as a user runs it: exit codes, kill and resume, sweeps, and what the loggers leave.

Most commands run in children of one process that has imported everything already, which saves seconds for each.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genrec.artifacts import read_json

SERVER = """
import atexit, json, os, sys, time, traceback
import genrec.pipeline, genrec.stages, genrec.trainers.tiger, genrec.models.tiger, genrec.tokenizers.rqkmeans
import genrec.data.encoders.tfidf, genrec.trainers.engine, genrec.tables, genrec.sweeps.callback, hydra, tensorboard
import sklearn.decomposition, sklearn.feature_extraction.text
from genrec.run import main
from genrec.trainers.base import BaseTrainer

def slow(step):
    def slowed(*args):
        time.sleep(0.02)
        return step(*args)
    return slowed

def work(request):
    if request["slow"]:
        BaseTrainer.train_step = slow(BaseTrainer.train_step)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    sys.argv = ["genrec", *request["argv"]]
    try:
        main()
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = work(json.loads(line))
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TINY = [
    "model.embedding_dim=32",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_heads=2",
    "model.head_dim=16",
    "model.feedforward_dim=64",
    "data.source.num_users=120",
    "data.source.num_items=60",
    "hardware=cpu",
    "hardware.num_threads=1",
    "progress=false",
]
POPULARITY = [*(item for item in TINY if not item.startswith("model.")), "model=popularity", "baselines=null"]
LONG = [*TINY, "trainer.max_epochs=3", "trainer.batch_size=32", "trainer.log_every_steps=7"]


@dataclass
class Running:
    """A command in progress; ``log`` is where it writes."""

    server: subprocess.Popen[str]
    pid: int
    log: Path
    code: int | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A test that fails leaves nothing that the next command would have to wait for."""
        if kind is not None and self.code is None:
            if not self.ended:
                os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Its exit code; -9 when it was killed."""
        if self.code is None:
            assert self.server.stdout is not None
            self.code = int(self.server.stdout.readline())
        return self.code

    @property
    def ended(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def until(self, reached: Callable[[], Any]) -> None:
        """Waits for something to be true while the command runs."""
        deadline = time.monotonic() + 120
        while not reached():
            assert not self.ended, f"ended before: {self.output}"
            assert time.monotonic() < deadline, self.output
            time.sleep(0.005)


@dataclass
class Commands:
    """Starts commands in a folder, one at a time; their runs share the cache there."""

    server: subprocess.Popen[str]
    root: Path

    def start(self, runs: str, *arguments: str, slow: bool = False) -> Running:
        """``slow`` takes at least a fiftieth of a second for a step, so that no busy machine misses the moment."""
        assert self.server.stdin is not None and self.server.stdout is not None
        log = self.root / f"{time.time_ns()}.log"
        argv = [*arguments, f"runs_dir={self.root / runs}", f"cache_dir={self.root / 'cache'}"]
        self.server.stdin.write(json.dumps({"argv": argv, "log": str(log), "slow": slow}) + "\n")
        self.server.stdin.flush()
        return Running(self.server, int(self.server.stdout.readline()), log)

    def run(self, runs: str, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        command = self.start(runs, *arguments)
        return command.wait(), command.output

    def folders(self, runs: str) -> list[Path]:
        """The run folders below ``runs``."""
        return sorted(path.parent for path in (self.root / runs).rglob("run.json"))

    def folder(self, runs: str) -> Path:
        (only,) = self.folders(runs)
        return only


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    root = tmp_path_factory.mktemp("commands")
    # From a folder of its own: what a run writes beside its run folder would be found there.
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=root,
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Commands(server, root)
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(scope="module")
def untouched(commands: Commands) -> Path:
    """The folder of a run that nobody disturbed, made by the command as it stands in the README."""
    places = [f"runs_dir={commands.root / 'untouched'}", f"cache_dir={commands.root / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "genrec.run", *LONG, *places],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run folder" in done.stdout and "ceiling" in done.stdout
    return commands.folder("untouched")


# -- exit codes


def test_a_run_ends_well_and_says_where_everything_is(untouched: Path) -> None:
    assert read_json(untouched / "run.json")["state"] == "finished"
    assert len(read_json(untouched / "metrics.json")["history"]["val/recall@10"]) == 3
    overrides = OmegaConf.to_container(OmegaConf.load(untouched / "overrides.yaml"))
    assert isinstance(overrides, list) and overrides[: len(LONG)] == LONG
    lines = (untouched / "run.log").read_text(encoding="utf-8")
    assert "Epoch 3/3" in lines and "item_knn" in lines and f"run folder: {untouched}" in lines


def test_faults_end_with_2_before_anything_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "genrec.run", "model=tigr", "optimizer.lr=fast", f"runs_dir={tmp_path / 'runs'}"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Did you mean tiger?" in done.stderr and "optimizer.lr=fast" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_mistake_found_by_the_run_ends_with_1_and_a_sentence(commands: Commands) -> None:
    code, output = commands.run("mistake", "data=folder", "data.path=nowhere.csv", "model=popularity")
    assert code == 1
    assert "nowhere.csv" in output
    assert "Traceback" not in output and "Error executing job" not in output
    assert len(output.splitlines()) <= 2
    assert read_json(commands.folder("mistake") / "run.json")["state"] == "failed"


# -- killed and started again


def undisturbed(folder: Path) -> list[dict[str, float]]:
    """What was measured after each epoch; the seconds are those of the machine."""
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in read_json(folder / "history.json")
    ]


@pytest.mark.parametrize("variant", ["between_epochs", "within_epochs"])
def test_killed_and_resumed_run_ends_with_the_same_bytes(variant: str, commands: Commands, untouched: Path) -> None:
    """SIGKILL in mid-epoch, then the same command with resume=auto."""
    overrides = [*LONG] if variant == "between_epochs" else [*LONG, "trainer.checkpoint_every_steps=5"]
    with commands.start(variant, *overrides, slow=True) as command:
        command.until(lambda: list((commands.root / variant).rglob("last.ckpt")))
        while True:
            time.sleep(0.05)  # somewhere within an epoch
            os.kill(command.pid, signal.SIGSTOP)
            state = torch.load(next((commands.root / variant).rglob("last.ckpt")), weights_only=True)
            if (state["step_in_epoch"] > 0) == (variant == "within_epochs"):
                break
            os.kill(command.pid, signal.SIGCONT)
        os.kill(command.pid, signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
    folder = commands.folder(variant)
    assert state["epoch"] < 3
    begun = read_json(folder / "run.json")
    assert begun["state"] == "running"
    assert not (folder / "metrics.json").exists()

    code, output = commands.run(variant, *overrides, "resume=auto")
    assert code == 0, output
    assert f"continuing {folder}" in output and "Resuming" in output
    assert f"Epoch {state['epoch'] + 1}/3" in output and f"Epoch {state['epoch']}/3" not in output
    assert commands.folder(variant) == folder
    assert [path for path in (commands.root / variant).rglob("*") if path.is_dir() and not any(path.iterdir())] == []
    ended = read_json(folder / "run.json")
    assert {name: ended[name] for name in ("started", "config_key", "model", "data", "monitor")} == {
        name: begun[name] for name in ("started", "config_key", "model", "data", "monitor")
    }
    assert ended["state"] == "finished" and ended["pid"] != begun["pid"]
    assert undisturbed(folder) == undisturbed(untouched)
    assert (folder / "metrics.json").read_bytes() == (untouched / "metrics.json").read_bytes()
    for name in ("best_model.pt", "final_model.pt"):
        one, two = (torch.load(place / "checkpoints" / name, weights_only=True) for place in (folder, untouched))
        assert all(torch.equal(one[key], two[key]) for key in two)
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"] == []
    resumed = scalars(folder)  # steps done twice are logged twice, with the same values
    for name, curve in scalars(untouched).items():
        if name == "seconds":  # those of the machine
            assert [step for step, _ in resumed[name]] == [step for step, _ in curve]
        else:
            assert dict(resumed[name]) == dict(curve), name


def test_resume_auto_starts_afresh_when_everything_is_finished(commands: Commands) -> None:
    quick = [*POPULARITY, "logger=none"]
    for count in (1, 2):
        code, output = commands.run("afresh", *quick, "resume=auto", f"hydra.run.dir={commands.root}/afresh/{count}")
        assert code == 0, output
        assert "a new one starts" in output
        assert len(commands.folders("afresh")) == count


def test_resume_of_a_named_folder_with_another_config_ends_with_1(commands: Commands, untouched: Path) -> None:
    before = (untouched / "metrics.json").read_bytes()
    code, output = commands.run("other_config", *LONG, "seed=7", f"resume={untouched}")
    assert code == 1
    assert "another config" in output and "Traceback" not in output
    assert (untouched / "metrics.json").read_bytes() == before
    assert read_json(untouched / "run.json")["state"] == "finished"


# -- sweeps


SWEPT = {(2, 1e-3), (2, 3e-4), (4, 1e-3), (4, 3e-4)}


@pytest.fixture(scope="module")
def sweep(commands: Commands) -> tuple[Path, str]:
    """The folder and the output of a sweep of four."""
    code, output = commands.run(
        "sweep", "-m", *TINY, "trainer.patience=2,4", "optimizer.lr=1e-3,3e-4", "trainer.max_epochs=1",
        "tokenizer.max_iters=7", "logger=csv",
    )  # fmt: skip
    assert code == 0, output
    (table,) = (commands.root / "sweep").rglob("sweep.csv")
    return table.parent, output


def test_sweep_of_four_trains_the_tokenizer_once(sweep: tuple[Path, str]) -> None:
    lines = [line for line in sweep[1].splitlines() if line.startswith("tokenizer: rqkmeans gave")]
    assert [line.endswith("(from the cache)") for line in lines] == [False, True, True, True]


def test_sweep_prints_and_writes_one_row_per_run(sweep: tuple[Path, str]) -> None:
    folder, output = sweep
    table = output[output.index("4 runs, the best first") :]
    printed = [line.split() for line in table.splitlines() if line.strip()[:1].isdecimal() and "runs" not in line]
    assert {(int(words[1]), float(words[2])) for words in printed} == SWEPT
    ranked = [float(words[3]) for words in printed]
    assert ranked == sorted(ranked, reverse=True)
    with open(folder / "sweep.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(int(row["trainer.patience"]), float(row["optimizer.lr"])) for row in rows} == SWEPT
    assert {row["state"] for row in rows} == {"finished"}
    for row in rows:
        final = read_json(folder / row["job"] / "metrics.json")["final"]
        assert float(row["test/recall@10"]) == final["test/recall@10"]
    assert str(folder / "sweep.csv") in output.replace("\n", "")


def test_headers_of_the_sweep_s_table_can_be_read(sweep: tuple[Path, str]) -> None:
    table = sweep[1][sweep[1].index("4 runs, the best first") :]
    assert "patience" in table and "recall@10" in table and "ndcg@10" in table


def test_runs_of_a_sweep_differ_only_by_what_was_swept(sweep: tuple[Path, str]) -> None:
    finals = {row.name: read_json(row / "metrics.json")["final"] for row in sweep[0].iterdir() if row.is_dir()}
    assert len(finals) == 4
    losses = sorted(final["train/loss"] for final in finals.values())
    assert losses[0] == losses[1] != losses[2] == losses[3]  # patience changes nothing in one epoch, the rate does


def test_csv_logger_leaves_its_rows_in_every_run_folder(sweep: tuple[Path, str]) -> None:
    for job in ("0", "3"):
        with open(sweep[0] / job / "csv" / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        final = read_json(sweep[0] / job / "metrics.json")["final"]
        tested = [float(row["test/recall@10"]) for row in rows if row["test/recall@10"]]
        assert tested == [final["test/recall@10"]]
        steps = [int(row["step"]) for row in rows]
        assert steps == sorted(steps) and steps[-1] > 0


def test_a_job_that_fails_does_not_take_the_sweep_with_it(commands: Commands) -> None:
    good = commands.root / "good.csv"
    good.write_text("user_id,item_id\n" + "".join(f"{user},{user + step}\n" for user in range(9) for step in range(4)))
    options = ["data=folder", "model=popularity", "baselines=null", "progress=false", "logger=none"]
    code, _ = commands.run("failing", "-m", *options, f"data.path=nowhere.csv,{good}")
    assert code != 0
    (table,) = (commands.root / "failing").rglob("sweep.csv")
    with open(table, newline="", encoding="utf-8") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "finished"]


BROKEN = """
from genrec.models.popularity import Popularity

class Broken(Popularity):
    def recommend(self, batch, k):
        raise RuntimeError("a fault in the code")
"""


def test_a_job_with_a_fault_in_its_code_is_recorded_and_the_next_goes_on(commands: Commands) -> None:
    (commands.root / "broken_model.py").write_text(BROKEN)
    targets = "broken_model.Broken,genrec.models.popularity.Popularity"
    code, output = commands.run("fault", "-m", *POPULARITY, "logger=none", f"model._target_={targets}")
    assert code == 1 and "failed jobs: 0" in output
    (table,) = (commands.root / "fault").rglob("sweep.csv")
    with open(table, newline="", encoding="utf-8") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "finished"]
    broken = read_json(table.parent / "0" / "run.json")
    assert broken["error"] == "RuntimeError: a fault in the code"
    assert 'raise RuntimeError("a fault in the code")' in output  # where in the code it is


def test_failed_jobs_of_a_sweep_are_tried_again(commands: Commands) -> None:
    """What had finished stands; when nothing is left to do, the same command is a new sweep."""
    module = commands.root / "mended_model.py"
    module.write_text(BROKEN)
    targets = "mended_model.Broken,genrec.models.popularity.Popularity"
    words = ["-m", *POPULARITY, "logger=none", f"model._target_={targets}"]
    code, output = commands.run("mended", *words, "resume=auto")
    assert code == 1 and "failed jobs: 0. The same command tries them again with resume=auto" in output
    (folder,) = (path.parent for path in (commands.root / "mended").rglob("sweep.json"))
    before = (folder / "1" / "run.json").read_bytes()
    code, output = commands.run("mended", *words, "resume=auto")
    assert code == 1 and f"continuing the sweep in {folder}" in output  # it fails again
    module.write_text("from genrec.models.popularity import Popularity\n\nclass Broken(Popularity):\n    pass\n")
    code, output = commands.run("mended", *words, "resume=auto")
    assert code == 0 and f"continuing the sweep in {folder}" in output, output
    with open(folder / "sweep.csv", newline="", encoding="utf-8") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["finished", "finished"]
    assert (folder / "1" / "run.json").read_bytes() == before
    code, output = commands.run("mended", *words, "resume=auto")
    assert code == 0 and "has anything left to do" in output
    assert len(list((commands.root / "mended").rglob("sweep.json"))) == 2


def test_killed_sweep_goes_on_where_it_was(commands: Commands) -> None:
    """SIGKILL within the second of three runs; the first stands, the second continues, the third begins."""
    overrides = ["-m", *LONG, "logger=none", "baselines=null", "seed=1,2,3"]
    with commands.start("killed_sweep", *overrides, slow=True) as command:
        command.until(lambda: list((commands.root / "killed_sweep").glob("multirun/*/*/1/checkpoints/last.ckpt")))
        os.kill(command.pid, signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
    (record,) = (commands.root / "killed_sweep").rglob("sweep.json")
    first = (record.parent / "0" / "metrics.json").stat().st_mtime_ns
    assert read_json(record.parent / "1" / "run.json")["state"] == "running"

    code, output = commands.run("killed_sweep", *overrides, "resume=auto")
    assert code == 0, output
    assert f"continuing the sweep in {record.parent}" in output and "has ended already" in output
    assert "Resuming" in output  # from the checkpoint of the second
    assert list((commands.root / "killed_sweep").rglob("sweep.json")) == [record]
    assert (record.parent / "0" / "metrics.json").stat().st_mtime_ns == first
    with open(record.parent / "sweep.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert list(rows[0])[:3] == ["job", "state", "seed"] and "resume" not in rows[0]  # continued, but not another run
    assert commands.run("killed_alone", *[word for word in overrides[:-1] if word != "-m"], "seed=2")[0] == 0
    alone = commands.folder("killed_alone")
    assert (record.parent / "1" / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()


def test_interrupted_run_is_killed_not_failed_and_ends_with_130(commands: Commands) -> None:
    with commands.start("interrupted", *LONG, "logger=none", "baselines=null", slow=True) as command:
        command.until(lambda: list((commands.root / "interrupted").rglob("last.ckpt")))
        os.kill(command.pid, signal.SIGINT)
        assert command.wait() == 130, command.output
    assert "resume=auto goes on" in command.output and "Traceback" not in command.output
    assert read_json(commands.folder("interrupted") / "run.json")["state"] == "killed"


def test_seeds_are_runs_of_their_own_and_their_spread_is_told(commands: Commands) -> None:
    code, output = commands.run("seeds", *POPULARITY, "logger=none", "seeds=2", "split=ratio_per_user", "seed=5")
    assert code == 0, output
    (table,) = (commands.root / "seeds").rglob("sweep.csv")
    with open(table, newline="", encoding="utf-8") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["5", "6"]
    assert "over seeds: mean ± standard deviation" in output


# -- loggers


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) as TensorBoard reads them back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_tags_are_read_back(untouched: Path) -> None:
    curves = scalars(untouched)
    metrics = read_json(untouched / "metrics.json")
    wanted = {"train/loss", "train/loss_step", "train/lr", "val/loss", "val/recall@10", "val/ndcg@10", "test/recall@10"}
    assert wanted - set(curves) == set()
    for name in ("train/loss", "val/recall@10"):
        assert [value for _, value in curves[name]] == pytest.approx(metrics["history"][name], rel=1e-6)
    assert [value for _, value in curves["test/recall@10"]] == pytest.approx([metrics["final"]["test/recall@10"]])


def test_tensorboard_steps_never_go_backwards(untouched: Path) -> None:
    curves = scalars(untouched)
    for name, curve in curves.items():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps)), name
    last = curves["train/loss"][-1][0]
    assert curves["test/recall@10"][0][0] >= last > 0
    assert [step for step, _ in curves["train/loss_step"]][:3] == [7, 14, 21]


def test_wandb_offline_leaves_its_folder_in_the_run_folder(commands: Commands) -> None:
    code, output = commands.run("wandb", *POPULARITY, "logger=wandb")
    assert code == 0, output
    assert "is off" not in output and "failed" not in output
    folder = commands.folder("wandb")
    (run,) = (folder / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))
    assert list(commands.root.glob("**/offline-run-*")) == [run]  # and nothing beside the run folder
