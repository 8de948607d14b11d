"""What a killed process has left is removed by the next, and nothing else is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genrec.scratch import BESIDE, OWNER, Scratch, remove_remains

MAKER = """
import sys, time
from pathlib import Path
from genrec.scratch import Scratch
place = Path(sys.argv[1])
scratch = Scratch(".lists.csv.", place)
(scratch.path / "whole").write_text("half of a table")
unfinished = place / ".lists.csv.abcd1234.csv"
unfinished.write_text("half of a file")
scratch.goes_with(unfinished)
print(scratch.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts a process that works in a folder of its own below ``tmp_path``."""
    started = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        started.append(
            subprocess.Popen([sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        )
        assert started[-1].stdout is not None
        return started[-1], Path(started[-1].stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.wait()


Maker = Callable[[], tuple[subprocess.Popen[str], Path]]


def test_remains_of_the_dead_are_removed_and_the_living_left_alone(maker: Maker, tmp_path: Path) -> None:
    dead, remains = maker()
    _, living = maker()
    remove_remains(tmp_path)
    assert remains.is_dir() and living.is_dir()
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    (living / BESIDE).unlink()
    mine = Scratch(".other.parquet.", tmp_path)
    assert not remains.exists() and (living / "whole").exists()
    assert not (tmp_path / ".lists.csv.abcd1234.csv").exists()  # which the dead one was about to rename
    mine.remove()
    assert list(tmp_path.iterdir()) == [living]


def test_a_folder_of_another_machine_is_left_alone(maker: Maker, tmp_path: Path) -> None:
    process, remains = maker()
    process.kill()
    process.wait()
    here = (remains / OWNER).read_text()
    (remains / OWNER).write_text("another")
    remove_remains(tmp_path)
    assert (remains / "whole").exists()
    (remains / OWNER).write_text(here)
    remove_remains(tmp_path)
    assert not remains.exists()


@pytest.mark.parametrize("name", [".lists.csv.abcd1234", "genrec-abcd1234", ".git", "lists"])
def test_folders_that_nobody_here_has_made_are_left_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("mine")
    remove_remains(tmp_path)
    (folder / OWNER).write_text("")  # as of one that is only being made
    remove_remains(tmp_path)
    assert (folder / "file").read_text() == "mine"


def test_what_goes_with_a_folder_lies_beside_it(tmp_path: Path) -> None:
    """A note of another place, such as one that was written by hand, removes nothing."""
    precious = tmp_path / "precious.csv"
    precious.write_text("mine")
    scratch = Scratch(".lists.csv.", tmp_path)
    scratch.goes_with(tmp_path / "deeper" / "x.csv")
    assert not (scratch.path / BESIDE).exists()
    for note in ("precious.csv", "../precious.csv", str(precious), "."):
        (scratch.path / BESIDE).write_text(note)
        scratch._owner.close()
        remove_remains(tmp_path)
        assert precious.exists()
        scratch = Scratch(".lists.csv.", tmp_path)


def test_what_is_kept_is_nobodys_remains(tmp_path: Path) -> None:
    scratch = Scratch("genrec_recommend_", tmp_path)
    (scratch.path / "process_1.log").write_text("why")
    scratch.keep()
    remove_remains(tmp_path)
    assert [path.name for path in scratch.path.iterdir()] == ["process_1.log"]


def test_links_are_not_followed(maker: Maker, tmp_path: Path) -> None:
    process, remains = maker()
    process.kill()
    process.wait()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / remains.name).symlink_to(remains)
    remove_remains(elsewhere)
    assert remains.is_dir()
    remove_remains(tmp_path / "nowhere")
