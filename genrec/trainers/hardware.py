"""What a run computes on: devices and processes, precision, threads, determinism."""

from __future__ import annotations

import copy
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from genrec.annotations import Count, check_fields
from genrec.contracts import GenrecError
from genrec.trainers.world import ALONE, Launcher, World, joined, launched, tell_lightning

logger = logging.getLogger("genrec.trainers")

_PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed", "64-true")
_OLD_PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}


@dataclass(kw_only=True)
class Hardware:
    """The machine side of a run.

    ``devices`` is how many GPUs of this machine a run uses, or how many processes on its CPU, each a process that takes
    its share of every batch; "auto" is every GPU where ``strategy`` is "ddp" or "fsdp", else 1. ``strategy`` is how
    several train one model: "ddp", each with all of it, or "fsdp", each with a part of it ("auto" is "ddp").
    ``launcher`` is what starts the processes: "torchrun", "slurm", or "auto": whichever of these has, else the run.
    ``precision`` is a Lightning name (16, 32 and 64 of
    older code are understood), or "auto": bf16-mixed where the machine multiplies bfloat16 faster, else 32-true.
    ``num_threads`` CPU threads, None for torch's choice; ``deterministic`` True, False or
    "warn" (deterministic where a kernel exists); ``compile`` runs the loss through torch.compile; ``gpus`` is the name
    older code used for ``accelerator`` and ``devices`` together (0 means CPU).
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | str = 1
    precision: str | int = "32-true"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    launcher: Launcher = "auto"
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
        self.devices = self._number_of_devices()
        self.world: World = ALONE  # of several processes once they have met

    def _number_of_devices(self) -> int:
        """What ``devices`` asks for, or a GenrecError where the machine has fewer."""
        found = torch.cuda.device_count() if self.accelerator in ("auto", "gpu", "cuda") else 0
        if self.devices == "auto":
            return max(found, 1) if self.strategy != "auto" else 1
        if not str(self.devices).isdecimal() or int(self.devices) < 1:
            raise GenrecError(f"hardware.devices={self.devices}: give a number from 1 up, or auto.")
        if int(self.devices) > max(found, 1) and self.accelerator != "cpu" and self.launched is None:
            raise GenrecError(
                f"hardware.devices={self.devices}: this machine has {found} GPUs that can be used together. "
                "Give fewer, or use hardware=ddp_cpu for processes on the CPU."
            )
        return int(self.devices)

    @property
    def launched(self) -> Launcher | None:
        """What has started this process beside others of its run. Tasks of Slurm may be runs of their own each, so they
        are one run only where ``strategy`` or ``launcher`` says so."""
        found = launched()
        return None if found == "slurm" and self.strategy == "auto" and self.launcher == "auto" else found

    @property
    def num_processes(self) -> int:
        """How many processes the run itself has to start, this one included."""
        return 1 if self.launched is not None else int(self.devices)

    @property
    def divides(self) -> bool:
        """Whether several processes, which have met, each hold a part of what they train."""
        return self.strategy == "fsdp" and self.world.size > 1

    @property
    def will_divide(self) -> bool:
        """The same before they have met."""
        return self.strategy == "fsdp" and (self.launched is not None or self.num_processes > 1)

    def alone(self) -> Hardware:
        """The same for one process, whatever others there are: what an upstream stage is trained on."""
        single = copy.copy(self)
        single.devices, single.world = 1, ALONE
        return single

    def undivided(self) -> Hardware:
        """The same with the whole model in each process: for what is small, or is trained by other means."""
        other = copy.copy(self)
        other.strategy = "ddp" if self.strategy == "fsdp" else self.strategy
        return other

    def join(self) -> World:
        """The world that torchrun or Slurm has started this process in, where it is one of several; else that of one
        process. Nothing is exchanged yet but notes."""
        found = self.launched
        if self.launcher != "auto" and found is None:
            start = "torchrun --nproc-per-node=<GPUs> -m genrec.run" if self.launcher == "torchrun" else "srun"
            raise GenrecError(
                f"hardware.launcher={self.launcher}: this process was not started by it with others beside. "
                f"Start the command with {start}, or use hardware=ddp, which starts processes itself."
            )
        world = joined() if found is not None else ALONE
        self.use_device_of(world)
        return world

    def use_device_of(self, world: World) -> None:
        """Takes the GPU of this process's place on its machine."""
        if self.device.type == "cuda":
            torch.cuda.set_device(world.local_rank % torch.cuda.device_count())

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
        """Sets the process-wide switches (threads, denormals, determinism, who writes) and returns the device."""
        tell_lightning(self.world)
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        elif self.world.local_size > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.world.local_size))
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
        """The arguments of ``pl.Trainer`` that this object decides, for a run of one process."""
        device = self.device
        return {
            "accelerator": {"cuda": "gpu"}.get(device.type, device.type),
            "devices": 1,
            "precision": self.precision,
            "strategy": "auto",
            "deterministic": self.deterministic,
        }


def fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster than those of float32: GPUs since Ampere, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
