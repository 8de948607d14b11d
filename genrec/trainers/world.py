"""The processes of a run: which of them this one is, and how they tell each other what each has found.

A run of one process is a world of its own, in which nothing is sent. In one of several, the process of rank 0 leads: it
alone writes and logs. All of them decide alike, because all are given the same numbers.
"""

from __future__ import annotations

import itertools
import os
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from genrec.contracts import GenrecError

T = TypeVar("T")
Launcher = Literal["auto", "torchrun", "slurm"]

_PATIENCE = timedelta(days=7)  # one process may train a tokenizer while the others wait; the dead are found otherwise
APART = 1_000_003  # between the seeds of processes, which else would drop the same units for their rows
_LOCAL = "127.0.0.1"
_PIECE = 2**28  # bytes of an array that are sent at a time


@dataclass(frozen=True)
class World:
    """``rank`` 0 to ``size`` - 1 of this process, ``local_rank`` among the ``local_size`` of its machine.

    ``store`` is where processes leave notes before they have ``met``; from then on they exchange tensors and objects.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = field(default=None, repr=False, compare=False)
    group: Any = field(default=None, repr=False, compare=False)  # of the processors, whatever the devices talk by
    _notes: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    # -- before they have met

    def told(self, value: T | None = None) -> T:
        """What the leader gives as ``value``, in every process."""
        if self.size == 1:
            return value  # pyright: ignore[reportReturnType]
        note = f"told/{next(self._notes)}"
        if self.leads:
            self.store.set(note, pickle.dumps(value))
            return value  # pyright: ignore[reportReturnType]
        return pickle.loads(self.store.get(note))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """A block that the others enter when the leader has left it: what it put into a cache they find there."""
        note = f"done/{next(self._notes)}"
        if not self.leads:
            self.store.wait([note], _PATIENCE)
        yield
        if self.leads and self.size > 1:
            self.store.set(note, "1")

    def met(self, device: torch.device) -> World:
        """The same world with its processes in touch; all have to call it."""
        if self.size == 1:
            return self
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = PrefixStore("genrec", self.store)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        group = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=_PATIENCE)
        return replace(self, group=group)

    # -- when they have met

    def gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def brought(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks, in the leader; nothing in the others."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, found, dst=0, group=self.group)
        return found or []

    def in_turn(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, of which each had every ``size``-th, in the order that they have together."""
        parts = self.gather(list(values))
        return [part[turn] for turn in range(len(parts[0])) for part in parts if turn < len(part)]

    def agreed(self, value: T) -> T:
        """What the leader gives as ``value``, in every process."""
        if self.size == 1:
            return value
        given: list[Any] = [value]
        dist.broadcast_object_list(given, src=0, group=self.group)
        return given[0]

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group if values.device.type == "cpu" else None)
        return values

    def array(self, value: np.ndarray | None = None) -> np.ndarray:
        """The array that the leader gives, in every process."""
        if self.size == 1:
            assert value is not None
            return value
        told: Any = self.agreed(None if value is None else (value.shape, value.dtype.str))
        shape, kind = told
        whole = np.empty(shape, dtype=kind) if value is None else np.ascontiguousarray(value)
        for part in torch.from_numpy(whole.reshape(-1).view(np.uint8)).split(_PIECE):
            dist.broadcast(part, src=0, group=self.group)
        return whole

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier(group=self.group)

    def share(self, count: int) -> range:
        """Which of ``count`` things are this process's: every ``size``-th."""
        return range(self.rank, count, self.size)


ALONE = World()


def launched() -> Launcher | None:
    """What has started this process beside others, by its environment; None where nothing has."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return "torchrun"
    return "slurm" if _slurm() is not None else None


def tell_lightning(world: World) -> None:
    """Which process this is, so that Lightning's loggers write in the first alone: of themselves they would take a task
    of Slurm that is a run of its own for one of several."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = world.rank


def joined() -> World:
    """The world of a process that torchrun, Slurm or a run of several processes has started."""
    slurm = _slurm()
    if "RANK" not in os.environ and slurm is not None:
        os.environ.update(slurm)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=30)))
    except (ValueError, dist.DistError) as error:
        raise GenrecError(
            f"The processes of this run do not find each other: {error}. Start them with torchrun, with srun, or leave "
            "starting them to genrec (hardware=ddp)."
        ) from None
    store.set_timeout(_PATIENCE)
    local, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    return World(rank, size, local, local_size, store)


def leading(size: int) -> tuple[World, int]:
    """The world of a process that is going to start ``size`` - 1 others on this machine, and the port they call at."""
    store = TCPStore(_LOCAL, 0, size, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
    return World(0, size, 0, size, store), store.port


def environment_of(rank: int, size: int, port: int) -> dict[str, str]:
    """What a process that the leader starts has to find in its environment."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": _LOCAL,
        "MASTER_PORT": str(port),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def leave() -> None:
    """Ends what ``met`` began, so that a next run of this process can meet others."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _slurm() -> dict[str, str] | None:
    """What torchrun would put into the environment of a process that srun has started beside others; None elsewhere.

    The shell of an interactive job is one process, whatever it may start.
    """
    said = os.environ.get
    size = int(said("SLURM_STEP_NUM_TASKS") or said("SLURM_NTASKS") or 1)
    if size < 2 or "SLURM_STEP_ID" not in os.environ or said("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    machines = said("SLURM_STEP_NODELIST") or said("SLURM_NODELIST") or _LOCAL
    tasks = _of_machines(said("SLURM_STEP_TASKS_PER_NODE") or said("SLURM_TASKS_PER_NODE") or str(size))
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks[int(said("SLURM_NODEID") or 0)]),
        "MASTER_ADDR": said("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(machines),
        "MASTER_PORT": said("MASTER_PORT") or str(15_000 + int(said("SLURM_JOB_ID", "0")[-4:])),
    }


def _of_machines(text: str) -> list[int]:
    """A number for each machine, as Slurm writes them: ``2(x3),1``."""
    return [int(number) for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]
