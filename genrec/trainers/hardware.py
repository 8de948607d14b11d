"""What a run computes on: device, precision, threads, determinism."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from genrec.annotations import Count, check_fields
from genrec.contracts import GenrecError

logger = logging.getLogger("genrec.trainers")

_PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "64-true")
_OLD_PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}


@dataclass(kw_only=True)
class Hardware:
    """The machine side of a run.

    ``devices`` is 1, what a run can use so far ("auto" is read as 1); ``precision`` a Lightning name (16, 32 and 64 of
    older code are understood), or "auto": bf16-mixed where the machine multiplies bfloat16 faster, else 32-true.
    ``num_threads`` CPU threads, None for torch's choice; ``deterministic`` True, False or
    "warn" (deterministic where a kernel exists); ``compile`` runs the loss through torch.compile; ``gpus`` is the name
    older code used for ``accelerator`` and ``devices`` together (0 means CPU).
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | str = 1
    precision: str | int = "32-true"
    strategy: str = "auto"
    num_threads: Count | None = None
    deterministic: bool | Literal["warn"] = "warn"
    compile: bool = False
    gpus: int | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None:
            self.accelerator, self.devices = ("gpu", self.gpus) if self.gpus > 0 else ("cpu", 1)
            logger.warning(
                "hardware.gpus is an older name: read as hardware.accelerator=%s hardware.devices=%s.",
                self.accelerator, self.devices,
            )  # fmt: skip
        precision = str(self.precision)
        if precision in _OLD_PRECISIONS:
            logger.info("hardware.precision=%s is read as %s.", precision, _OLD_PRECISIONS[precision])
        self.precision = _OLD_PRECISIONS.get(precision, precision)
        if self.precision not in _PRECISIONS:
            raise GenrecError(f"hardware.precision={precision!r} is not known. Choose one of {', '.join(_PRECISIONS)}.")
        check_fields(self, "hardware")
        if self.precision == "auto":
            self.precision = "bf16-mixed" if fast_bfloat16(self.device) else "32-true"
            logger.info("hardware.precision=auto is %s on this machine.", self.precision)
        if str(self.devices) not in ("1", "auto"):
            raise GenrecError(f"hardware.devices={self.devices}: a run uses one device; give 1, or start several runs.")
        self.devices = 1

    @property
    def device(self) -> torch.device:
        """The device of this process; a GenrecError where the wanted kind is not there."""
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if self.accelerator in ("auto", found) or (self.accelerator == "gpu" and found != "cpu"):
            return torch.device(found, torch.cuda.current_device()) if found == "cuda" else torch.device(found)
        if self.accelerator == "cpu":
            return torch.device("cpu")
        raise GenrecError(
            f"hardware.accelerator={self.accelerator!r} was asked for, but this machine has only {found!r}. "
            "Use hardware=auto, or hardware=cpu."
        )

    def prepare(self) -> torch.device:
        """Sets the process-wide switches (threads, denormals, determinism) and returns the device."""
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        torch.set_flush_denormal(True)  # tiny Adam moments would slow CPU arithmetic down many times
        torch.use_deterministic_algorithms(self.deterministic is not False, warn_only=self.deterministic == "warn")
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        return self.device

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The arithmetic that evaluation runs in: the same as training's."""
        if self.precision == "bf16-mixed":
            return torch.autocast(device.type, dtype=torch.bfloat16)
        if self.precision == "16-mixed":
            return torch.autocast(device.type, dtype=torch.float16)
        return nullcontext()

    def engine_options(self) -> dict[str, Any]:
        """The arguments of ``pl.Trainer`` that this object decides."""
        device = self.device
        return {
            "accelerator": {"cuda": "gpu"}.get(device.type, device.type),
            "devices": self.devices,
            "precision": self.precision,
            "strategy": self.strategy,
            "deterministic": self.deterministic,
        }


def fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster than those of float32: GPUs since Ampere, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
