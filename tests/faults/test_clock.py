"""Clocks that go backwards: no folder is used twice, the run that was begun last is continued, no time is negative."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genrec.artifacts import read_json
from tests.faults.faulty_runs import TINY, Commands, same_result, state_of

# The clock of this process goes wrong by so many seconds, from the ``nth`` look at it on; the machine's does not.
CLOCK = """
import datetime
now, calls = time.time, [0]
def wrong():
    calls[0] += 1
    return now() + ({seconds} if calls[0] >= {nth} else 0)
time.time = wrong
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp({fixed} or now() + {seconds}, tz)
datetime.datetime = Wrong
import hydra._internal.utils, hydra.core.utils
hydra.core.utils.datetime = Wrong
"""
DAY = 86400.0


def clock(seconds: float = -DAY, nth: int = 1, fixed: float | None = None) -> str:
    return CLOCK.format(seconds=seconds, nth=nth, fixed=fixed)


def test_a_clock_set_back_while_a_run_goes_on(commands: Commands, whole: Callable[..., Path]) -> None:
    code, output = commands.run(*TINY, "logger=tensorboard", planted=clock(nth=4))
    assert code == 0, output
    folder = commands.folder()
    told = read_json(folder / "run.json")
    assert told["ended"] >= told["started"] and state_of(folder) == "finished"
    assert all(seconds >= 0 for seconds in read_json(folder / "timing.json").values())
    assert all(row["seconds"] >= 0 for row in read_json(folder / "history.json"))
    same_result(folder, whole(*TINY))
    code, output = commands.run(
        "ls", f"runs_dir={commands.root / 'runs'}", "format=json", module="genrec.report.command"
    )
    assert code == 0 and '"seconds": -' not in output


def test_the_run_that_was_begun_last_goes_on(commands: Commands, whole: Callable[..., Path]) -> None:
    """Two killed runs; the clock was set back by a day before the second began."""
    for planted in ("", clock()):
        marker = commands.root / f"at_{len(commands.started)}"
        hold = f"hold('genrec.trainers.base:BaseTrainer.train_step', {str(marker)!r}, 12)"
        command = commands.start(*TINY, planted=planted + hold)
        command.until(marker.exists)
        command.kill(signal.SIGKILL)
        command.wait()
        time.sleep(0.02)
    by_start = sorted(commands.folders(), key=lambda folder: read_json(folder / "run.json")["started"])
    assert len(by_start) == 2
    code, output = commands.run(*TINY, "resume=auto")
    assert code == 0
    assert f"continuing {by_start[0]}" in output  # its clock says that it is the older one
    same_result(by_start[0], whole(*TINY))


@pytest.mark.slow
def test_a_second_that_comes_twice_overwrites_nothing(commands: Commands, whole: Callable[..., Path]) -> None:
    frozen = clock(fixed=time.time())
    for count in (1, 2, 3):
        assert commands.run(*TINY, "logger=tensorboard", planted=frozen)[0] == 0
        assert len(commands.folders()) == count
    first, *others = commands.folders()
    assert [folder.name for folder in others] == [f"{first.name}_2", f"{first.name}_3"]
    for folder in commands.folders():
        same_result(folder, whole(*TINY))


@pytest.mark.slow
def test_curves_of_a_run_that_went_on_under_an_earlier_clock(commands: Commands) -> None:
    """TensorBoard reads the steps of both parts in their order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*TINY, "logger=tensorboard", "trainer.log_every_steps=2"]
    command = commands.held("genrec.trainers.base:BaseTrainer.train_step", *words, nth=20)
    command.kill(signal.SIGKILL)
    command.wait()
    folder = commands.folder()
    assert commands.run(*words, "resume=auto", planted=clock())[0] == 0
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    curve = dict((event.step, event.value) for event in events.Scalars("train/loss"))
    epochs = read_json(folder / "history.json")
    assert sorted(curve) == [row["step"] for row in epochs]
    assert [round(curve[row["step"]], 4) for row in epochs] == [round(row["train/loss"], 4) for row in epochs]


@pytest.mark.slow
def test_files_of_the_future_are_listed_and_continued(commands: Commands) -> None:
    command = commands.held("genrec.trainers.base:BaseTrainer.train_step", *TINY, nth=12)
    command.kill(signal.SIGKILL)
    command.wait()
    folder = commands.folder()
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + DAY, time.time() + DAY))
    code, output = commands.run("ls", f"runs_dir={commands.root / 'runs'}", module="genrec.report.command")
    assert code == 0 and "killed" in output and "-" + "1" not in output.split("changed")[0]
    code, output = commands.run(*TINY, "resume=auto")
    assert code == 0 and f"continuing {folder}" in output
