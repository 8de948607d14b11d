"""Two runs that want the same folder, or the same entry of the cache, at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from genrec.artifacts import entry_damage
from tests.faults.faulty_runs import TINY, Commands, same_result, sentence, state_of
from tests.faults.test_disk import TEXT

STEP = "genrec.trainers.base:BaseTrainer.train_step"
WAIT = """
from {module} import {owner}
original = {owner}.{name}
def waits(*args, **kwargs):
    open({marker!r}, "w").close()
    while not os.path.exists({go!r}):
        time.sleep(0.005)
    return original(*args, **kwargs)
{owner}.{name} = waits
"""


def waiting(commands: Commands, module: str, owner: str, name: str) -> tuple[str, Path, Path]:
    """Python that makes a run wait at a method until it is told to go on."""
    marker, go = commands.root / "reached", commands.root / "go"
    return WAIT.format(module=module, owner=owner, name=name, marker=str(marker), go=str(go)), marker, go


def test_the_second_run_into_a_folder_is_refused_and_the_first_goes_on(
    commands: Commands, whole: Callable[..., Path]
) -> None:
    planted, marker, go = waiting(commands, "genrec.trainers.base", "BaseTrainer", "train_step")
    place = f"hydra.run.dir={commands.root / 'runs' / 'mine'}"
    first = commands.start(*TINY, place, planted=planted)
    first.until(marker.exists)
    before = {path: path.read_bytes() for path in (commands.root / "runs" / "mine").rglob("*") if path.is_file()}
    code, output = commands.run(*TINY, "seed=9", place)
    assert code == 1
    assert "Another process is running in" in sentence(output) and "hydra.run.dir" in output
    assert {path: path.read_bytes() for path in before} == before
    go.touch()
    assert first.wait() == 0, first.output
    same_result(commands.folder(), whole(*TINY))


def test_a_run_that_goes_on_elsewhere_is_not_continued(commands: Commands) -> None:
    planted, marker, go = waiting(commands, "genrec.trainers.base", "BaseTrainer", "train_step")
    first = commands.start(*TINY, planted=planted)
    first.until(marker.exists)
    code, output = commands.run(*TINY, f"resume={commands.folder()}")
    assert code == 1 and "Another process is running in" in sentence(output)
    go.touch()
    assert first.wait() == 0 and state_of(commands.folder()) == "finished"


def test_two_runs_with_one_entry_of_the_cache(commands: Commands) -> None:
    planted, marker, go = waiting(commands, "genrec.data.encoders.tfidf", "TfidfEncoder", "encode")
    first = commands.start(*TEXT, planted=planted)
    first.until(marker.exists)
    second = commands.start(*TEXT, "seed=9", f"hydra.run.dir={commands.root / 'runs' / 'second'}")
    second.until(lambda: "waiting for what it makes" in second.output)
    go.touch()
    assert first.wait() == 0 and second.wait() == 0, second.output
    assert "(from the cache)" in second.output and "(from the cache)" not in first.output
    (mark,) = commands.root.rglob("done")
    assert entry_damage(mark.parent) == ""


def test_who_waits_for_a_killed_run_does_its_work(commands: Commands) -> None:
    first = commands.held("genrec.data.encoders.tfidf:TfidfEncoder.encode", *TEXT)
    second = commands.start(*TEXT, "seed=9", f"hydra.run.dir={commands.root / 'runs' / 'second'}")
    second.until(lambda: "waiting for what it makes" in second.output)
    first.kill()
    first.wait()
    assert second.wait() == 0, second.output
    assert "(from the cache)" not in second.output
