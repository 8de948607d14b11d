"""An item table of which each of several processes holds some rows: reading it, and its softmax cross-entropy.

Every process has to call these functions at the same time, each with rows of its own, which may be more or fewer.
Gradients of a shard are means over the processes, as those of parameters that all of them hold are in training.

Shapes: N items, W processes, n rows of a shard, D width, M items read, R targets of this process, S of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.nn import functional

from genrec.losses import columns_of, log_sum, softmax_gradients


@dataclass(frozen=True)
class Shard:
    """Which of ``num_items`` rows the process ``rank`` of ``size`` holds: those from ``begin`` up to ``end``, as torch
    divides a tensor: all but the last processes hold equally many."""

    rank: int
    size: int
    num_items: int

    @property
    def begin(self) -> int:
        return min(self.rank * self._most, self.num_items)

    @property
    def end(self) -> int:
        return min(self.begin + self._most, self.num_items)

    @property
    def _most(self) -> int:
        return -(-self.num_items // self.size)

    def cut(self, table: Tensor) -> Tensor:
        """(n, D) a copy of the rows of the whole ``table`` (N, D) that this process holds."""
        return table[self.begin : self.end].clone()

    def places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``items`` this process holds, and the rows of the shard that those are."""
        held = (items >= self.begin) & (items < self.end)
        return held, items[held] - self.begin


def fetch(weight: Tensor, items: Tensor, shard: Shard) -> Tensor:
    """The vectors (..., D) of ``items`` (...), wherever they are held; ``weight`` (n, D) is this process's shard."""
    found: Any = _Fetch.apply(own_part(weight), items.flatten(), shard)
    return found.view(*items.shape, -1)


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, shard: Shard) -> Tensor:
    """-log softmax over all N items at ``targets`` (R,), the mean over this process's, in nats; 0 where it has none.

    ``hidden`` (R, D). Each process scores the rows of all processes against its shard, some items at a time; the
    largest scores, the sums of their exp and the gradients of ``hidden`` are put together over the processes.
    """
    exact = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        loss: Any = _CrossEntropy.apply(hidden.to(exact), own_part(weight), targets, shard)
    return loss


def whole_table(weight: Tensor, shard: Shard) -> Tensor:
    """(N, D) the rows of all processes, in every process."""
    return _gathered(own_part(weight).detach())[0]


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that knows that it is divided; another tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gathered(rows: Tensor) -> tuple[Tensor, slice]:
    """The rows (S, ...) of all processes, those of lower ranks first, and which of them are this process's own."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(count) for count in counts]
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(found, padded)
    begin = sum(lengths[: dist.get_rank()])
    together = torch.cat([part[:length] for part, length in zip(found, lengths, strict=True)])
    return together, slice(begin, begin + len(rows))


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, items: Tensor, shard: Shard) -> Tensor:
        asked, own = _gathered(items)
        held, places = shard.places(asked)
        found = weight.new_zeros(len(asked), weight.shape[1])
        found[held] = functional.embedding(places, weight)
        dist.all_reduce(found)
        ctx.save_for_backward(held, places)
        ctx.shape, ctx.size = weight.shape, shard.size
        return found[own]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        held, places = ctx.saved_tensors
        together, _ = _gathered(gradient.contiguous())
        of_weight = gradient.new_zeros(ctx.shape).index_add_(0, places, together[held])
        return of_weight.div_(ctx.size), None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, shard: Shard) -> Tensor:
        rows, own = _gathered(hidden.detach())
        held, places = shard.places(_gathered(targets)[0])
        table = weight.detach().to(rows.dtype)
        local = log_sum(rows, table, columns_of(len(rows), len(table), rows.device.type))
        largest = local.clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        total = (local - largest).exp()
        wanted = torch.zeros_like(total)
        wanted[held] = (rows[held] * functional.embedding(places, table)).sum(dim=1)
        both = torch.stack([total, wanted])
        dist.all_reduce(both)
        total, wanted = both[0].log() + largest, both[1]
        ctx.save_for_backward(rows, weight, held, places, total)
        ctx.own, ctx.size = own, shard.size
        return (total - wanted)[own].sum() / max(len(targets), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, held, places, total = ctx.saved_tensors
        count = ctx.own.stop - ctx.own.start
        share = _gathered((gradient / max(count, 1)).to(total.dtype).expand(count).contiguous())[0]
        table = weight.to(rows.dtype)
        parts = columns_of(len(rows), len(table), rows.device.type)
        of_rows, of_weight = softmax_gradients(rows, table, parts, total, share)
        of_rows[held] -= share[held, None] * functional.embedding(places, table)
        of_weight.index_add_(0, places, -share[held, None] * rows[held])
        dist.all_reduce(of_rows)
        return of_rows[ctx.own], of_weight.div_(ctx.size).to(weight.dtype), None, None
