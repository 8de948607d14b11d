"""Files that were torn, emptied or exchanged from outside: named in a sentence or made again, never used as whole."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.artifacts import entry_damage
from tests.faults.faulty_runs import TINY, Commands, same_result, sentence
from tests.faults.test_kill import TIGER


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def exchanged(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def of_another_model(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["model"] = {name: torch.zeros(2, 2) for name in state["model"]}
    torch.save(state, path)


@pytest.mark.parametrize("harm", [torn, emptied, exchanged, of_another_model])
def test_a_damaged_checkpoint_is_named_and_what_is_whole_is_offered(
    harm: Callable[[Path], None], commands: Commands
) -> None:
    command = commands.held("genrec.trainers.base:BaseTrainer.train_step", *TINY, nth=20)
    command.kill(signal.SIGKILL)
    command.wait()
    folder = commands.folder()
    last = folder / "checkpoints" / "last.ckpt"
    best = (folder / "checkpoints" / "best_model.pt").read_bytes()
    harm(last)
    before = last.read_bytes()
    code, output = commands.run(*TINY, "resume=auto")
    assert code == 1
    said = sentence(output)
    assert str(last) in said and ("without resume" in said or "remove it" in said), said
    if harm in (torn, emptied):
        assert "best_model.pt" in said  # which is whole
    assert last.read_bytes() == before and (folder / "checkpoints" / "best_model.pt").read_bytes() == best
    last.unlink()  # as was said
    assert commands.run(*TINY, "resume=auto")[0] == 0


@pytest.mark.parametrize("harm", [torn, emptied, exchanged])
def test_recommendations_from_damaged_weights(
    harm: Callable[[Path], None], commands: Commands, whole: Callable[..., Path]
) -> None:
    import shutil

    folder = Path(shutil.copytree(whole(*TINY), commands.root / "copy"))
    harm(folder / "checkpoints" / "best_model.pt")
    code, output = commands.run(f"run={folder}", "users=all", "output=recs.csv", module="genrec.recommend")
    assert code == 2
    assert "best_model.pt" in sentence(output)


# -- the cache


def half(entry: Path, name: str) -> None:
    torn(entry / name)


def gone(entry: Path, name: str) -> None:
    (entry / name).unlink()


def other_bytes(entry: Path, name: str) -> None:
    content = bytearray((entry / name).read_bytes())
    content[-1] ^= 1
    (entry / name).write_bytes(bytes(content))


def only_the_mark(entry: Path, name: str) -> None:
    for path in entry.iterdir():
        if path.is_file() and path.name not in ("done", "lock"):
            path.unlink()


def mark_of_another_time(entry: Path, name: str) -> None:
    torn(entry / name)
    (entry / "done").write_text("tokenizer 0123456789abcdef\n")


HARMS = [half, gone, other_bytes, only_the_mark, mark_of_another_time]
FILES = {"vectors.npy": "encoder", "semantic_ids.npz": "tokenizer", "report.json": "tokenizer"}


@pytest.fixture(scope="module")
def cached(whole: Callable[..., Path]) -> Path:
    """A cache that a finished run has left."""
    folder = whole(*TIGER)
    return next(parent / "cache" for parent in folder.parents if (parent / "cache").is_dir())


@pytest.mark.parametrize(("name", "stage"), FILES.items())
def test_a_damaged_entry_is_made_again(
    name: str, stage: str, cached: Path, commands: Commands, whole: Callable[..., Path], tmp_path: Path
) -> None:
    import shutil

    cache = Path(shutil.copytree(cached, tmp_path / "cache"))
    (entry,) = (cache / stage).iterdir()
    half(entry, name)
    code, output = commands.run(*TIGER)
    assert code == 0, output
    (warned,) = [line for line in output.splitlines() if "made again" in line]
    assert stage in warned and name in warned and "bytes, not" in warned
    assert entry_damage(entry) == ""
    same_result(commands.folder(), whole(*TIGER))


@pytest.mark.parametrize("harm", HARMS)
def test_every_damage_is_seen(harm: Callable[[Path, str], None], cached: Path, tmp_path: Path) -> None:
    import shutil

    for name, stage in FILES.items():
        (entry,) = (Path(shutil.copytree(cached, tmp_path / name)) / stage).iterdir()
        assert entry_damage(entry) == ""
        harm(entry, name)
        assert entry_damage(entry) != ""


def test_pieces_of_a_long_file_tell_of_damage_anywhere_near_them(tmp_path: Path) -> None:
    from genrec.artifacts import Cache

    with Cache(tmp_path).entry("stage", "key") as (folder, _):
        np.save(folder / "long.npy", np.zeros(100 << 20, dtype=np.uint8))
    assert entry_damage(folder) == ""
    with open(folder / "long.npy", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert "something else" in entry_damage(folder)
