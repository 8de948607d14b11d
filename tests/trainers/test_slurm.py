"""Processes that srun has started, and those within a job of Slurm that it has not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from trainer_toys import toy_context, toy_model, toy_view

from genrec.trainers.hardware import Hardware
from genrec.trainers.simple import SimpleTrainer
from genrec.trainers.world import joined, launched

PLACE = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
JOB = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NAME": "train"}
# As srun sets them: 2 machines with --ntasks=6, and neither --ntasks-per-node nor a port of one's own.
TASK = {
    **JOB,
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[04-05]",
    "SLURM_STEP_NODELIST": "node[04-05]",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in {name for name in os.environ if name.startswith("SLURM_")} | {*PLACE}:
        monkeypatch.setenv(name, "")  # so that it will be as it was, whatever a test leaves
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["5", "6", "1", "2", "node04", "18456"]),
        ({"SLURM_NODEID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}, ["3", "6", "3", "4", "node04", "18456"]),
        ({"SLURM_STEP_TASKS_PER_NODE": "3(x2)"}, ["5", "6", "1", "3", "node04", "18456"]),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)", "SLURM_NODEID": "3"}, ["5", "6", "1", "1", "node04", "18456"]),
        ({"SLURM_NTASKS_PER_NODE": "7", "MASTER_PORT": "99"}, ["5", "6", "1", "2", "node04", "99"]),
        ({"SLURM_NTASKS": "48", "SLURM_STEP_NODELIST": "node07"}, ["5", "6", "1", "2", "node07", "18456"]),
    ],
    ids=[
        "two machines",
        "the first of them",
        "as many on each",
        "four",
        "said otherwise",
        "a step of a part of the job",
    ],
)
def test_the_place_of_a_task(changes: dict[str, str], expected: list[str], environment: pytest.MonkeyPatch) -> None:
    for name, value in {**TASK, **changes}.items():
        environment.setenv(name, value)
    environment.setattr("genrec.trainers.world.rendezvous", lambda *args, **kwargs: iter([(Mock(), 5, 6)]))
    assert launched() == "slurm"
    world = joined()
    assert [os.environ[name] for name in PLACE] == expected
    assert [str(world.local_rank), str(world.local_size)] == expected[2:4]


def test_a_task_that_is_a_run_of_its_own_writes(tmp_path: Path) -> None:
    """Fault: Lightning reads the number of the task, and its loggers are silent in all but the first."""
    code = "import sys; from genrec.run import main; sys.argv[1:] = sys.argv[1].split(); main()"
    words = "model=popularity data=synthetic data.source.num_users=60 data.source.num_items=30 baselines=null "
    words += f"logger=csv hardware=cpu progress=false runs_dir={tmp_path} hydra.run.dir={tmp_path / 'run'}"
    variables = {**os.environ, **TASK, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, words], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "run").rglob("metrics.csv"))


@pytest.mark.parametrize(
    "changes",
    [{"SLURM_JOB_NAME": "interactive"}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_ID": None}],
    ids=["the shell of a job", "one task", "no srun"],
)
def test_what_is_no_task_beside_others(
    changes: dict[str, str | None], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It trains by itself, though the job has room for several."""
    for name, value in {**TASK, **changes}.items():
        if value is not None:
            environment.setenv(name, value)
    assert launched() is None
    trainer = SimpleTrainer(max_epochs=1, batch_size=64)
    assert trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, hardware=Hardware(accelerator="cpu"))).epochs == 1


@pytest.mark.slow
def test_tasks_of_a_step_find_each_other(environment: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from genrec.trainers.hardware import Hardware as H\n"
    code += "world = H(accelerator='cpu', strategy='ddp', launcher='slurm').join()\n"
    code += "print(world.rank, world.size, world.local_rank, world.local_size, world.told(world.rank))\n"
    code += "with world.leader_first(): pass"
    started = []
    for rank in range(2):
        place = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
        place |= {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_PORT": str(port)}
        place |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        variables = {**os.environ, **TASK, **place}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=variables, text=True, stdout=subprocess.PIPE))
    try:
        said = [process.communicate(timeout=60)[0].split() for process in started]
    finally:
        for process in started:
            process.kill()
    assert said == [["0", "2", "0", "2", "0"], ["1", "2", "1", "2", "0"]]
