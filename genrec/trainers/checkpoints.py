"""Files under ``<output_dir>/checkpoints``: weights anyone can load, and the full state a killed run continues from.

Every file is written beside its final name, synced and renamed, so that a process killed at any moment leaves the
previous version. All of them hold tensors and primitive values only: ``torch.load(path, weights_only=True)`` reads
them.
"""

from __future__ import annotations

import pickle
import random
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genrec.artifacts import atomic_path
from genrec.contracts import GenrecError

BEST, FINAL, LAST = "best_model.pt", "final_model.pt", "last.ckpt"
FORMAT = 1


class CheckpointFolder:
    """The checkpoints of one run. ``writes`` is False in all but one process of a distributed run."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = Path(path)
        self.writes = writes

    def clear(self) -> None:
        """Removes what an earlier run left here, so that files of two runs never mix."""
        if not self.writes or not self.path.is_dir():
            return
        for pattern in (BEST, FINAL, LAST, "checkpoint_epoch_*.pt"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        self.clear_unfinished()

    def clear_unfinished(self) -> None:
        """Removes temporary files that a killed process was writing."""
        if self.writes and self.path.is_dir():
            for file in [*self.path.glob(".*.pt"), *self.path.glob(".*.ckpt")]:
                file.unlink(missing_ok=True)

    def save_weights(self, name: str, model: nn.Module) -> None:
        """Writes the model's plain state dict."""
        if self.writes:
            _save(self.path / name, model.state_dict())

    def load_weights(self, name: str, model: nn.Module) -> None:
        """Puts saved weights into the model, wherever it lies."""
        load_weights(self.path / name, model)

    def epoch_name(self, epoch: int) -> str:
        return f"checkpoint_epoch_{epoch:04d}.pt"

    def remove(self, name: str) -> None:
        if self.writes:
            (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def save_last(self, state: dict[str, Any]) -> None:
        if self.writes:
            _save(self.path / LAST, {"format": FORMAT, **state})

    def load_last(self) -> dict[str, Any] | None:
        """The full state of the last checkpoint, or None where there is none yet."""
        if not self.has(LAST):
            return None
        try:
            state = read_checkpoint(self.path / LAST)
        except GenrecError as error:
            raise GenrecError(f"{str(error).rpartition(' Delete it')[0]} {self._remedy()}") from None
        if state.get("format") != FORMAT:
            raise GenrecError(
                f"{self.path / LAST} was written by another version of genrec. Start again without resume."
            )
        if not isinstance(state.get("model"), dict) or not isinstance(state.get("identity"), dict):
            raise GenrecError(f"{self.path / LAST} holds no state of a run. Start again without resume.")
        return state

    def _remedy(self) -> str:
        """What to do about a damaged last checkpoint, and which other files of the run can be read."""
        whole = []
        for name in sorted(path.name for path in self.path.glob("*.pt")):
            with suppress(GenrecError):
                read_checkpoint(self.path / name)
                whole.append(name)
        beside = f" Whole beside it: {', '.join(whole)}." if whole else ""
        return (
            "genrec replaces it in one piece, so it was damaged from outside. Put a copy back, or remove it: the same "
            f"command then trains this run anew.{beside}"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint to the CPU without running code from it; a missing or broken file is a GenrecError."""
    try:
        with warnings.catch_warnings():  # of formats that are refused below
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist. Train first, or name another run folder.") from None
    except Exception as error:
        raise GenrecError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}). Delete it and run again."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise GenrecError(
            f"{path} cannot be read as a checkpoint (it holds no table of names). Delete it and run again."
        )
    return state


def _reason(error: Exception) -> str:
    """Why torch refused a file, without its advice to load it all the same."""
    text = str(error).strip()
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in text:
        return "it holds more than tensors and numbers and could run code, so none of it was loaded"
    if "TorchScript" in text:
        return "it holds a program of TorchScript, which is not run"
    first = text.partition("\n")[0].partition(". This is an internal")[0][:200].rstrip(". ")
    return first if first and "eights only" not in first else "it is damaged or no checkpoint at all"


def load_weights(path: Path, model: nn.Module) -> None:
    """Puts saved weights into the model, wherever it lies; those of another model are a GenrecError."""
    put_weights(read_checkpoint(path), model, path)


def put_weights(state: Any, model: nn.Module, path: Path) -> None:
    """Puts the weights that were read from ``path`` into the model; those of another are a GenrecError."""
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = told[min(1, len(told) - 1)][:200].rstrip(". ") if told else type(error).__name__
        raise GenrecError(
            f"{path} holds another model than {type(model).__name__} as it is configured ({reason}). "
            "Give the checkpoint of this run, or build the model as it was trained."
        ) from None


def write_checkpoint(path: Path, value: dict[str, Any]) -> Path:
    """Writes a state dict, or nothing at all where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, value)
    return path


def _save(path: Path, value: dict[str, Any]) -> None:
    with atomic_path(path, needs=_size(value)) as temporary:
        torch.save(value, temporary)


def _size(value: Any) -> int:
    """Bytes of the tensors in nested tables and lists, about what a file of them takes."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, parts))


def rng_state() -> dict[str, Any]:
    """The state of every random number generator, as tensors and primitive values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_all(seed: int) -> None:
    """Seeds python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
