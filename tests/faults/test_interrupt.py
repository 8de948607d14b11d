"""Ctrl-C and SIGTERM: a checkpoint at the step where the run was, an exit code that says so, and the bits of a run that
nobody has interrupted; under Slurm the job goes on by itself."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genrec.artifacts import read_json
from tests.faults.faulty_runs import TINY, Commands, Running, same_result, sentence, state_of

STEP = "genrec.trainers.base:BaseTrainer.train_step"
TRAINING = """
from genrec.trainers.base import BaseTrainer
step, calls = BaseTrainer.train_step, [0]
def holding(self, *args):
    calls[0] += 1
    if calls[0] >= {nth}:
        open({marker!r}, "w").close()
        while not os.path.exists({go!r}):
            time.sleep(0.005)
    return step(self, *args)
BaseTrainer.train_step = holding
"""


def training(commands: Commands, *words: str, environment: dict[str, str] | None = None) -> Running:
    """A run somewhere in the middle of an epoch."""
    return come_to(TRAINING, 12, commands, *TINY, *words, environment=environment)


def come_to(
    planted: str, nth: int, commands: Commands, *words: str, environment: dict[str, str] | None = None
) -> Running:
    """A run that has come to the ``nth`` call of what is ``planted``, where it waits for ``interrupt``."""
    marker, go = commands.root / "marker", commands.root / "go"
    for path in (marker, go):
        path.unlink(missing_ok=True)
    planted = planted.format(nth=nth, marker=str(marker), go=str(go))
    command = commands.start(*words, planted=planted, environment=environment)
    command.until(marker.exists)
    return command


def interrupt(command: Running, number: signal.Signals) -> None:
    """Sends a signal, and only then lets the run go on."""
    command.kill(number)
    (command.log.parent / "go").touch()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_interrupted_run_ends_at_its_step_and_goes_on_with_the_same_bits(
    number: signal.Signals, code: int, commands: Commands, whole: Callable[..., Path]
) -> None:
    command = training(commands)
    interrupt(command, number)
    assert command.wait() == code, command.output
    assert "resume=auto goes on" in sentence(command.output)
    folder = commands.folder()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["step_in_epoch"] > 0 and state["global_step"] >= 11  # not that of the last whole epoch
    told = read_json(folder / "run.json")
    assert told["state"] == "killed" and (number.name in told["error"])

    code, output = commands.run(*TINY, "resume=auto")
    assert code == 0, output
    assert f"Resuming {folder}" in output and f"step {state['global_step']}" in output
    assert state_of(folder) == "finished"
    same_result(folder, whole(*TINY))


@pytest.mark.slow
def test_gradients_that_are_accumulated_are_not_cut_in_half(commands: Commands, whole: Callable[..., Path]) -> None:
    words = [*TINY, "trainer.accumulate_grad_batches=3"]
    command = training(commands, words[-1])
    interrupt(command, signal.SIGINT)
    assert command.wait() == 130
    state = torch.load(commands.folder() / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["step_in_epoch"] % 3 == 0 and state["step_in_epoch"] > 0
    assert commands.run(*words, "resume=auto")[0] == 0
    same_result(commands.folder(), whole(*words))


VALIDATING = """
from genrec.models.sasrec import SASRec
recommend, calls = SASRec.recommend, [0]
def holding(self, *args):
    calls[0] += 1
    if calls[0] >= {nth}:
        open({marker!r}, "w").close()
        while not os.path.exists({go!r}):
            time.sleep(0.005)
    return recommend(self, *args)
SASRec.recommend = holding
"""
MANY_BATCHES = [*TINY, "trainer.eval_batch_size=4", "callbacks=weight_average"]  # 20 of them


@pytest.mark.parametrize(
    ("words", "epoch", "step"),
    [([], 2, None), ([], 3, None), (["trainer.max_steps=26"], 2, 26)],
    ids=["an epoch", "the last epoch", "the last step"],
)
def test_validation_is_cut_and_the_steps_before_it_are_kept(
    words: list[str], epoch: int, step: int | None, commands: Commands, whole: Callable[..., Path]
) -> None:
    """What training had done goes on with its validation: no step of that epoch is taken twice, none is left out."""
    words = [*MANY_BATCHES, *words]
    command = come_to(VALIDATING, 20 * (epoch - 1) + 3, commands, *words)
    interrupt(command, signal.SIGINT)
    assert command.wait() == 130, command.output
    folder = commands.folder()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["evaluation_due"] and state["epoch"] == epoch - 1 and state["step_in_epoch"] > 0
    assert step is None or state["global_step"] == step
    assert len(read_json(folder / "history.json")) == epoch - 1  # it was not waited for
    assert f"Epoch {epoch}/3 - " not in command.output

    taken = commands.root / "steps"
    counted = f"""
from genrec.trainers.base import BaseTrainer
step = BaseTrainer.train_step
def counting(self, *args):
    open({str(taken)!r}, "a").write("x")
    return step(self, *args)
BaseTrainer.train_step = counting
"""
    code, output = commands.run(*words, "resume=auto", planted=counted)
    assert code == 0 and f"step {state['global_step']}" in output, output
    resumed, undisturbed = folder, whole(*words)
    same_result(resumed, undisturbed)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    again = len(taken.read_text()) if taken.exists() else 0
    assert again == last["global_step"] - state["global_step"]
    left, right = (
        [{name: value for name, value in row.items() if name != "seconds"} for row in read_json(one / "history.json")]
        for one in (resumed, undisturbed)
    )
    assert left == right


@pytest.mark.slow
def test_validation_that_is_cut_again_and_again(commands: Commands, whole: Callable[..., Path]) -> None:
    for _ in range(2):
        command = come_to(VALIDATING, 2, commands, *MANY_BATCHES, "resume=auto")
        interrupt(command, signal.SIGTERM)
        assert command.wait() == 143, command.output
    assert commands.run(*MANY_BATCHES, "resume=auto")[0] == 0
    same_result(commands.folder(), whole(*MANY_BATCHES))


@pytest.mark.slow
def test_a_test_is_cut_as_well(commands: Commands, whole: Callable[..., Path]) -> None:
    command = come_to(VALIDATING, 63, commands, *MANY_BATCHES)
    interrupt(command, signal.SIGINT)
    assert command.wait() == 130, command.output
    assert "Test results" not in command.output and not (commands.folder() / "metrics.json").exists()
    assert commands.run(*MANY_BATCHES, "resume=auto")[0] == 0
    same_result(commands.folder(), whole(*MANY_BATCHES))


def test_a_second_ctrl_c_ends_at_once(commands: Commands) -> None:
    command = commands.held(STEP, *TINY, nth=12)  # the step never ends
    command.kill(signal.SIGINT)
    command.until(lambda: "Ctrl-C again" in command.output)
    time.sleep(1.1)  # later than an echo of the first
    command.kill(signal.SIGINT)
    assert command.wait() == 130
    assert state_of(commands.folder()) == "killed"


@pytest.mark.parametrize(
    "place", ["genrec.pipeline:prepare", "genrec.pipeline:evaluate_baselines"], ids=["data", "baselines"]
)
def test_ctrl_c_outside_of_training_is_obeyed_at_once(place: str, commands: Commands) -> None:
    command = commands.held(place, *TINY)
    command.kill(signal.SIGINT)
    assert command.wait() == 130
    assert "resume=auto goes on" in sentence(command.output)
    assert read_json(commands.folder() / "run.json")["state"] == "killed"


# -- Slurm


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a job, with commands of Slurm that write down what they are asked."""

    def environment(state: str = "RUNNING", **variables: str) -> dict[str, str]:
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        for name, answer in (("scontrol", ""), ("squeue", state)):
            tool = tools / name
            tool.write_text(f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/asked\necho {answer}\n')
            tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "SLURM_JOB_ID": "77", **variables}

    return environment


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_of_slurm_is_requeued_and_goes_on_by_itself(
    number: signal.Signals, commands: Commands, whole: Callable[..., Path], slurm: Callable[..., dict[str, str]]
) -> None:
    """The second start is the very same command: Slurm only counts how often it has started the job."""
    command = training(commands, environment=slurm())
    interrupt(command, number)
    assert command.wait() == 128 + number
    assert asked(commands.root)[-1] == "scontrol requeue 77"
    assert "goes on by itself" in sentence(command.output)
    folder = commands.folder()
    assert read_json(folder / "run.json")["slurm_job"] == "77"
    later = training(commands, environment=slurm(SLURM_JOB_ID="78"))  # the same run, begun later by another job
    later.kill(signal.SIGKILL)
    later.wait()
    code, output = commands.run(*TINY, environment=slurm(SLURM_RESTART_COUNT="1"))
    assert code == 0 and f"continuing {folder}" in output, output
    same_result(folder, whole(*TINY))


def test_tasks_of_an_array_are_requeued_by_their_number(
    commands: Commands, slurm: Callable[..., dict[str, str]]
) -> None:
    command = training(commands, environment=slurm(SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="4"))
    interrupt(command, signal.SIGUSR1)
    assert command.wait() == 128 + signal.SIGUSR1
    assert asked(commands.root) == ["scontrol requeue 70_4"]


def test_a_job_that_was_cancelled_stays_so(commands: Commands, slurm: Callable[..., dict[str, str]]) -> None:
    command = training(commands, environment=slurm(state="COMPLETING"))
    interrupt(command, signal.SIGTERM)
    assert command.wait() == 143
    assert [line.split()[0] for line in asked(commands.root)] == ["squeue"]
    assert (commands.folder() / "checkpoints" / "last.ckpt").exists() and "resume=auto" in sentence(command.output)


def test_only_the_first_process_asks_for_the_job_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slurm: Callable[..., dict[str, str]]
) -> None:
    from genrec.slurm import requeue

    for name, value in slurm(SLURM_PROCID="1").items():
        monkeypatch.setenv(name, value)
    assert not requeue(signal.SIGUSR1) and not asked(tmp_path)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert requeue(signal.SIGUSR1)
    monkeypatch.setenv("RANK", "1")  # torchrun in a task
    assert not requeue(signal.SIGUSR1)
    assert asked(tmp_path) == ["scontrol requeue 77"]


# -- several processes


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_stop_at_the_same_step(number: signal.Signals, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("hardware")]
    words += ["hardware=ddp_cpu", "trainer.max_epochs=4", "model.dropout=0", f"runs_dir={tmp_path / 'runs'}"]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "genrec.run", *words]
    process = subprocess.Popen(
        start, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("history.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)  # the terminal, and Slurm, tell all of them
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "resume=auto goes on" in sentence(said)
    done = subprocess.run([*start, "resume=auto"], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "Resuming" in done.stdout, done.stdout + done.stderr
    (resumed,) = [path.parent for path in tmp_path.rglob("metrics.json")]
    done = subprocess.run(
        [*start, f"hydra.run.dir={tmp_path / 'one'}"], env=environment, capture_output=True, timeout=200
    )
    assert done.returncode == 0
    same_result(resumed, tmp_path / "one")


SLOW_MODEL = """
import os, time
from pathlib import Path
from genrec.models.sasrec import SASRec

class Slow(SASRec):
    calls = 0
    def recommend(self, batch, k):
        Slow.calls += 1
        if "SLOW_FROM" in os.environ and Slow.calls >= int(os.environ["SLOW_FROM"]):
            if "RANK" not in os.environ:
                Path(os.environ["MARKER"]).touch()
            time.sleep(0.2)
        return super().recommend(batch, k)
"""


@pytest.mark.slow
def test_two_processes_leave_their_validation_and_their_test(tmp_path: Path) -> None:
    """They have 11 and 10 batches of it. The terminal tells both, and ``kill`` only the first."""
    (tmp_path / "slow_model.py").write_text(SLOW_MODEL)
    words = [word for word in TINY if not word.startswith(("hardware", "data.source.num_users"))]
    words += ["model._target_=slow_model.Slow", "hardware=ddp_cpu", "model.dropout=0", "data.source.num_users=81"]
    words += ["trainer.eval_batch_size=4", "trainer.max_epochs=2", f"runs_dir={tmp_path / 'runs'}"]
    places = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    marker = tmp_path / "marker"
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", "MARKER": str(marker)}
    start = [sys.executable, "-m", "genrec.run", *words]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}

    def cut(nth: int, send: Callable[[int, int], None], number: int, *more: str) -> str:
        marker.unlink(missing_ok=True)
        process = subprocess.Popen([*start, *more], env={**environment, "SLOW_FROM": str(nth)}, **options)
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        send(process.pid, number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number, said
        assert "resume=auto goes on" in sentence(said)
        return said

    assert "Epoch 2/2 - " not in cut(11 + 2, os.killpg, signal.SIGINT)
    (folder,) = [path.parent for path in (tmp_path / "runs").rglob("run.json")]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["evaluation_due"]
    assert "Test results" not in cut(11 + 2, os.kill, signal.SIGTERM, "resume=auto")
    assert not torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["evaluation_due"]
    for more in ("resume=auto", f"hydra.run.dir={tmp_path / 'one'}"):
        done = subprocess.run([*start, more], env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
    same_result(folder, tmp_path / "one")
