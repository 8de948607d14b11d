from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import GenrecError
from genrec.trainers.checkpoints import CheckpointFolder, read_checkpoint, rng_state, seed_all, set_rng_state


def draws() -> tuple[Any, ...]:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_random_states_survive_a_file(tmp_path: Path) -> None:
    seed_all(3)
    draws()
    torch.save(rng_state(), tmp_path / "state.pt")
    expected = draws()
    draws()
    set_rng_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == expected


def test_a_write_that_dies_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save_weights("a.pt", nn.Linear(2, 2))
    before = (tmp_path / "a.pt").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        folder.save_weights("a.pt", nn.Linear(2, 2))
    assert (tmp_path / "a.pt").read_bytes() == before
    (tmp_path / ".last.ckpt.x1.ckpt").write_bytes(b"half")  # what SIGKILL leaves
    folder.clear_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_only_one_process_writes(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, writes=False).save_weights("a.pt", nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(GenrecError, match=r"bad\.pt cannot be read"):
        read_checkpoint(tmp_path / "bad.pt")


def test_pickled_checkpoints(tmp_path: Path) -> None:
    torch.save({"path": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(GenrecError):
        read_checkpoint(tmp_path / "code.pt")


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 0}, tmp_path / "last.ckpt")
    with pytest.raises(GenrecError, match="without resume"):
        CheckpointFolder(tmp_path).load_last()
