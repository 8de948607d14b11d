"""What layers exchange that look at a whole batch, when each of several processes has a share of its rows.

Outside of such a run nothing is sent, nor while one process does something ``alone``. B rows of this process, W
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

_alone = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """A block that others do not enter with this process, so that nobody would answer."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def num_processes() -> int:
    """How many processes train together."""
    together = dist.is_available() and dist.is_initialized() and not _alone.get()
    return dist.get_world_size() if together else 1


def summed(values: Tensor) -> Tensor:
    """``values`` summed over the processes, with a gradient to those of each."""
    total: Any = values if num_processes() == 1 else _Sum.apply(values)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


@torch.no_grad()
def mean_of_shares(mean: Tensor, count: int) -> Tensor:
    """The mean over the rows of all processes, of which this one has ``count`` with the given ``mean``."""
    if num_processes() == 1:
        return mean
    total, whole = summed(torch.stack([mean * count, mean.new_tensor(float(count))]))
    return total / whole


@torch.no_grad()
def gathered(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes, those of the first process first; each may have another number of them."""
    if num_processes() == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(num_processes())]
    dist.all_gather(counts, count)
    longest = max(int(number) for number in counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(number)] for part, number in zip(parts, counts, strict=True)])


@torch.no_grad()
def of_first(values: Tensor) -> Tensor:
    """The ``values`` of the first process, in all of them."""
    if num_processes() > 1:
        dist.broadcast(values, src=0)
    return values
