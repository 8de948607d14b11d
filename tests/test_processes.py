"""A run of two real processes from its one command: the figures of one process, and no process left behind."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from genrec.artifacts import read_json
from genrec.config import compose_config
from genrec.contracts import GenrecError, LostProcessError
from genrec.pipeline import execute
from genrec.processes import Workers, log_of, started
from genrec.semantic_ids import SemanticIds

TINY = [
    "model.embedding_dim=32",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_heads=2",
    "model.head_dim=16",
    "model.feedforward_dim=64",
    "model.dropout=0",
    "model.attention_dropout=0",
    "data.source.num_users=120",
    "data.source.num_items=60",
    "trainer.max_epochs=2",
    "trainer.batch_size=64",
    "trainer.log_every_steps=1",
    "logger=csv",
    "progress=false",
]


def run(folder: Path, *words: str) -> Any:
    """A run in this process, which starts the other one itself."""
    config = compose_config([*TINY, f"runs_dir={folder.parent}", *words, f"output_dir={folder}"])
    return execute(config)


def losses(folder: Path) -> list[float]:
    (path,) = folder.rglob("metrics.csv")
    with open(path, encoding="utf-8") as stream:
        return [float(row["train/loss_step"]) for row in csv.DictReader(stream) if row.get("train/loss_step")]


def workers() -> set[int]:
    """The processes that a run of this test has started beside itself; other tests may run at the same time."""
    test = "PYTEST_CURRENT_TEST=" + os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"genrec.worker" in path.read_bytes() and test.encode() in (path.parent / "environ").read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def no_orphans() -> Any:
    yield
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers()


def test_two_processes_give_the_figures_of_one(tmp_path: Path, no_orphans: Any) -> None:
    one, two = run(tmp_path / "one", "hardware=cpu"), run(tmp_path / "two", "hardware=ddp_cpu")
    assert one.final.keys() == two.final.keys()
    for name, value in one.final.items():
        assert two.final[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    steps = losses(one.folder), losses(two.folder)
    assert len(steps[0]) > 20 and steps[1] == pytest.approx(steps[0], rel=1e-5)
    names = [{path.name for path in folder.iterdir()} for folder in (one.folder, two.folder)]
    assert names[0] == names[1]
    assert read_json(two.folder / "run.json")["state"] == "finished"


def test_a_torchrun_of_one_process_is_not_noticed_by_those_that_it_starts(tmp_path: Path, monkeypatch: Any) -> None:
    """Its notes would have them look for the leader in another store."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("MINE", "kept")
    start = Mock(return_value=Mock(**{"poll.return_value": None}))
    monkeypatch.setattr(subprocess, "Popen", start)
    Workers(tmp_path, 2, 29500, fail=Mock(), advice="").end()
    (given,) = [call.kwargs["env"] for call in start.call_args_list]
    assert not [name for name in given if name.startswith("TORCHELASTIC_")]
    assert (given["MINE"], given["RANK"], given["MASTER_PORT"]) == ("kept", "1", "29500")


@pytest.mark.slow
def test_two_halves_of_a_model_give_the_figures_of_one(tmp_path: Path, no_orphans: Any) -> None:
    sizes = ["tokenizer.codebook_size=16", "tokenizer.num_levels=3", "tokenizer.trainer.max_epochs=3"]
    words = ["tokenizer=rqvae", *sizes]
    parts = ["hardware=fsdp", "hardware.accelerator=cpu", "hardware.devices=2"]
    one, two = run(tmp_path / "one", *words, "hardware=cpu"), run(tmp_path / "two", *words, *parts)
    assert two.final == {name: pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in one.final.items()}
    steps = losses(one.folder), losses(two.folder)
    assert len(steps[0]) > 20 and steps[1] == pytest.approx(steps[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["rqvae", "opq"])
def test_two_processes_tokenize_as_one(tmp_path: Path, tokenizer: str, no_orphans: Any) -> None:
    words = [f"tokenizer={tokenizer}", "tokenizer.codebook_size=16", "tokenizer.num_levels=3", "baselines=null"]
    words += ["tokenizer.trainer.max_epochs=10"] if tokenizer == "rqvae" else []
    folders = {"cpu": tmp_path / "one" / "run", "ddp_cpu": tmp_path / "two" / "run"}  # each with a cache of its own
    found = {name: run(folder, *words, f"hardware={name}") for name, folder in folders.items()}
    one, two = (SemanticIds.load(folder / "semantic_ids.npz").codes for folder in folders.values())
    np.testing.assert_array_equal(one, two)
    for name, value in found["cpu"].final.items():
        assert found["ddp_cpu"].final[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("ddp_cpu", "cpu"), ("cpu", "ddp_cpu")])
def test_resume_finds_a_run_of_another_number_of_processes(
    tmp_path: Path, no_orphans: Any, first: str, then: str
) -> None:
    words = ["baselines=null", "trainer.max_epochs=4", "trainer.checkpoint_every_steps=2"]
    single = run(tmp_path / "single" / "run", *words, "hardware=cpu")
    with pytest.raises(KeyboardInterrupt):
        config = compose_config(
            [*TINY, *words, f"runs_dir={tmp_path}", f"output_dir={tmp_path}/run", f"hardware={first}"]
        )
        execute(config, watch=_interrupt)
    found = run(tmp_path / "other", *words, f"hardware={then}", "resume=auto")
    assert found.folder == tmp_path / "run"
    for name, value in single.final.items():
        assert found.final[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def _interrupt(epoch: int, value: float) -> bool:
    if epoch == 2:
        raise KeyboardInterrupt
    return False


@pytest.fixture
def command(tmp_path: Path) -> Any:
    """The command of a long run of two processes."""
    words = [*TINY, "hardware=ddp_cpu", "trainer.max_epochs=10000", "trainer.patience=null", "baselines=null"]
    words += [f"runs_dir={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "genrec.run", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield process
    process.kill()
    process.wait()


def wait_until_training(process: subprocess.Popen[str], folder: Path) -> int:
    """Waits for the first epoch; returns the id of the other process."""
    deadline = time.monotonic() + 120
    while not (folder / "history.json").exists():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (other,) = [pid for pid in workers() if f"/{process.pid}\n" in parent_of(pid)]
    return other


def parent_of(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return ""
    return f"/{fields[1]}\n"


@contextmanager
def meeting(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A world in which the other process does ``code``."""

    def start(self: Workers, rank: int, port: int) -> subprocess.Popen[bytes]:
        with open(self.folder / log_of(rank), "wb") as said:
            return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=said)

    monkeypatch.setattr(Workers, "_start", start)
    with started(2, folder, fail=lambda error: None, advice="give less."):
        yield


def test_a_process_that_takes_a_while_to_end_is_what_broke_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(LostProcessError, match=r"Process 2 of 2 ended with code 1: no memory"),
        meeting(tmp_path, "import sys, time; time.sleep(1.5); sys.exit('no memory')", monkeypatch),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")


def test_another_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), meeting(tmp_path, "import time; time.sleep(100)", monkeypatch):
        raise ZeroDivisionError


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_process_ends_the_run_with_a_sentence(tmp_path: Path, command: Any, no_orphans: Any) -> None:
    other = wait_until_training(command, tmp_path / "run")
    os.kill(other, signal.SIGKILL)
    killed = time.monotonic()
    said, _ = command.communicate(timeout=30)
    assert command.returncode == 1 and time.monotonic() - killed < 20
    assert "Process 2 of 2 was killed by SIGKILL" in said and "Traceback" not in said
    state = read_json(tmp_path / "run" / "run.json")
    assert state["state"] == "failed" and "SIGKILL" in state["error"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_the_others_end_with_the_leader(tmp_path: Path, command: Any, no_orphans: Any) -> None:
    other = wait_until_training(command, tmp_path / "run")
    command.kill()
    command.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{other}").exists()


@pytest.mark.slow
def test_a_mistake_of_the_user_is_told_once(tmp_path: Path, no_orphans: Any) -> None:
    with pytest.raises(GenrecError, match=r"val/nothing.*not among what is measured"):
        run(tmp_path / "run", "hardware=ddp_cpu", "trainer.monitor=val/nothing", "baselines=null")


@pytest.mark.slow
def test_every_run_of_a_sweep_has_its_processes(tmp_path: Path, no_orphans: Any) -> None:
    words = [*TINY, "hardware=ddp_cpu", "baselines=null", "trainer.max_epochs=1", f"runs_dir={tmp_path}"]
    command = [sys.executable, "-m", "genrec.run", "-m", "seed=1,2", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # no notes of torch on how to be a little faster
    states = [read_json(tmp_path / "sweep" / name / "run.json")["state"] for name in ("0", "1")]
    assert states == ["finished", "finished"]


@pytest.mark.slow
def test_torchrun_starts_the_same_run(tmp_path: Path) -> None:
    words = [*TINY, "hardware=torchrun", "hardware.accelerator=cpu", f"runs_dir={tmp_path}"]
    place = [f"hydra.run.dir={tmp_path}/${{now:%H-%M-%S-%f}}"]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "genrec.run"]
    done = subprocess.run([*start, *words, *place], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "reducer.cpp" not in done.stderr and "Warning" not in done.stderr
    (folder,) = [path.parent for path in tmp_path.rglob("metrics.json")]
    assert [path for path in tmp_path.iterdir() if path not in (folder, tmp_path / "cache")] == []
    single = run(tmp_path / "one", "hardware=cpu")
    found = json.loads((folder / "metrics.json").read_text())["final"]
    assert found == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in single.final.items()}
