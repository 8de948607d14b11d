"""Disks that are full and folders that may not be written: a sentence, exit code 1, and what was finished stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from genrec.artifacts import entry_damage, read_json, write_text
from genrec.disk import StorageError
from tests.faults.faulty_runs import TINY, Commands, same_result, sentence, state_of, unfinished_files

# No file may grow beyond so many bytes: what a quota or a full disk looks like, on every machine and without rights.
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))\n"
FROM = """
import {module}
original, calls = {place}, [0]
def limited(*args, **kwargs):
    calls[0] += 1
    if calls[0] == {nth}:
        {limit}
    return original(*args, **kwargs)
{place} = limited
"""
# As root, who may do anything, without that right.
NO_RIGHTS = "ctypes.CDLL(None).prctl(24, 1); ctypes.CDLL(None).prctl(24, 2)\n"


def full_from(place: str, nth: int, size: int = 6000) -> str:
    """Python that lets the disk be full from the ``nth`` call of a function on."""
    return FROM.format(module=place.rpartition(".")[0], place=place, nth=nth, limit=LIMIT.format(size=size).strip())


def test_a_full_disk_while_a_checkpoint_is_written(commands: Commands, whole: Callable[..., Path]) -> None:
    code, output = commands.run(*TINY, planted=full_from("torch.save", 3))  # last.ckpt of the second epoch, about
    assert code == 1
    said = sentence(output)
    assert "checkpoints/" in said and "are needed" in said and "resume=auto" in said, said
    folder = commands.folder()
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 1 and unfinished_files(folder) == []
    assert "cannot be written" in read_json(folder / "run.json")["error"] and state_of(folder) == "failed"
    code, output = commands.run(*TINY, "resume=auto")
    assert code == 0 and "Resuming" in output, output
    same_result(folder, whole(*TINY))


TEXT = ["model=text_knn", "data.source.num_users=40", "data.source.num_items=200", *TINY[9:]]


def test_a_full_disk_while_the_cache_is_written(commands: Commands) -> None:
    code, output = commands.run(*TEXT, planted=full_from("numpy.save", 1))
    assert code == 1
    said = sentence(output)
    assert "vectors.npy" in said and "are needed" in said, said
    assert list(commands.root.rglob("done")) == [] and unfinished_files(commands.root / "cache") == []
    assert commands.run(*TEXT, "resume=auto")[0] == 0
    (mark,) = commands.root.rglob("done")
    assert entry_damage(mark.parent) == ""


def test_a_full_disk_while_the_metrics_are_written(commands: Commands, whole: Callable[..., Path]) -> None:
    through = "import subprocess\ncat = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"  # what is said is no file
    through += "os.dup2(cat.stdin.fileno(), 1), os.dup2(cat.stdin.fileno(), 2)\n"
    command = commands.start(*TINY, planted=through + full_from("genrec.pipeline.write_numbers", 1, size=10))
    assert command.wait() == 1
    deadline = time.monotonic() + 10
    while "resume=auto" not in command.output and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "metrics.json" in sentence(command.output) and "resume=auto" in command.output
    folder = commands.folder()
    assert not (folder / "metrics.json").exists() and state_of(folder) in ("failed", "killed")
    code, output = commands.run(*TINY, "resume=auto")
    assert code == 0, output
    same_result(folder, whole(*TINY))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; only root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("nothing can be mounted here; the tests above limit the size of files instead")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(small_disk: Path, commands: Commands, whole: Callable[..., Path]) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(940_000))
    words = [*TINY, f"runs_dir={small_disk / 'runs'}"]
    code, output = commands.run(*words)
    assert code == 1, output
    said = sentence(output)
    assert "There is no space to write" in said and "are free" in said, said
    ballast.unlink()
    code, output = commands.run(*words, "resume=auto")
    assert code == 0, output
    (folder,) = [path.parent for path in small_disk.rglob("metrics.json")]
    same_result(folder, whole(*TINY))


@pytest.mark.parametrize("words", [[], ["-m"]], ids=["run", "sweep"])
@pytest.mark.parametrize("place", ["/proc/nope", "{file}/below"])
def test_no_folder_for_runs(place: str, words: list[str], commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = place.format(file=tmp_path / "file")
    code, output = commands.run(*words, *TINY, f"runs_dir={where}")
    assert code == 1
    said = sentence(output)
    assert said.startswith(where) and "cannot be written" in said and "runs_dir=" in said
    assert len(output.strip().splitlines()) == 1


def test_a_folder_that_may_only_be_read(commands: Commands, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    planted = NO_RIGHTS if os.getuid() == 0 else ""
    planted += "os.execv(sys.executable, [sys.executable, '-m', 'genrec.run', *sys.argv[1:]])" if planted else ""
    code, output = commands.run(*TINY, f"runs_dir={closed / 'runs'}", planted=planted)
    assert code == 1
    assert "Permission denied" in sentence(output) and str(closed) in sentence(output)
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("output", ["{closed}/recs.parquet", "{folder}"])
def test_recommendations_that_cannot_be_written(output: str, whole: Callable[..., Path], commands: Commands) -> None:
    folder = commands.root / "folder.parquet"
    folder.mkdir()
    (commands.root / "file").touch()
    where = output.format(closed=commands.root / "file", folder=folder)
    run = whole(*TINY)
    code, said = commands.run(f"run={run}", "users=all", f"output={where}", module="genrec.recommend")
    assert code in (1, 2) and where in sentence(said), said
    assert folder.is_dir() and list(folder.iterdir()) == []


def test_what_was_there_before_a_full_disk_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    write_text(tmp_path / "a.json", "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"no space to write .*a\.json.* free"):
        write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old" and unfinished_files(tmp_path) == []
