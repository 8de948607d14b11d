"""GATv2 attention over the edges of a fixed graph on a CPU: torch-geometric's numbers without its memory traffic.

S sources, T targets, E edges, H heads, C width of a head, F = H C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from genrec.nn.propagation import multiply

_AT_ONCE = 1 << 17  # numbers of a chunk of edges, so that it stays in cache


@dataclass(frozen=True)
class Incidence:
    """Which edges begin and end where: ``index`` (2, E) sorted by target, ``of_targets`` (T + 1,) and ``of_sources``
    (S + 1,) offsets, ``by_source`` (E,) the edges in order of their sources; int32 all but ``index``."""

    index: Tensor
    of_targets: Tensor
    of_sources: Tensor
    by_source: Tensor

    @classmethod
    def of(cls, index: Tensor, num_sources: int, num_targets: int) -> Incidence:
        """``index`` (2, E) must be in ascending order of the targets."""
        offsets = [
            functional.pad(torch.bincount(ends, minlength=count).cumsum(0), (1, 0)).int()
            for ends, count in ((index[1], num_targets), (index[0], num_sources))
        ]
        return cls(index, offsets[0], offsets[1], torch.argsort(index[0], stable=True).int())


def edge_attention(
    values: Tensor,
    queries: Tensor,
    features: Tensor | None,
    of_features: Tensor | None,
    attention: Tensor,
    incidence: Incidence,
    *,
    dropout: float = 0.0,
    slope: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """What every target receives (T, F), and the attention (E, H) to every edge, which adds up to 1 at each target.

    ``values`` (S, F) of sources and ``queries`` (T, F) of targets, ``features`` (E, 1) of edges and their map
    ``of_features`` (F, 1), ``attention`` (H, C). The logit of an edge is attention . LeakyReLU(value + query +
    features), a softmax runs over the edges of each target, ``dropout`` zeroes some of them (Brody et al., ICLR 2022,
    eq. 7). The attention has no gradient of its own.
    """
    mask = None
    if dropout > 0:
        mask = values.new_empty(incidence.index.shape[1], len(attention)).bernoulli_(1 - dropout).div_(1 - dropout)
    found: Any = _EdgeAttention.apply(values, queries, features, of_features, attention, incidence, mask, slope)
    return found


class _EdgeAttention(torch.autograd.Function):
    """Forward keeps nothing as large as E x F; backward makes one such array, the gradient of the sums."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        queries: Tensor,
        features: Tensor | None,
        of_features: Tensor | None,
        attention: Tensor,
        incidence: Incidence,
        mask: Tensor | None,
        slope: float,
    ) -> tuple[Tensor, Tensor]:
        heads = len(attention)
        index, segments = incidence.index, incidence.of_targets.long()
        logits = values.new_empty(index.shape[1], heads)
        blocks = _blocks(attention)
        for part in _parts(index, values.shape[1]):
            sums = _sums(values, queries, features, of_features, index, part)
            torch.mm(functional.leaky_relu_(sums, slope), blocks, out=logits[part])
        peaks = torch.segment_reduce(logits, "max", offsets=segments, axis=0, initial=-torch.inf)
        weights = logits.sub_(peaks.index_select(0, index[1])).exp_()
        weights /= torch.segment_reduce(weights, "sum", offsets=segments, axis=0).index_select(0, index[1])
        kept = weights if mask is None else weights * mask
        out = torch.empty_like(queries)
        sources, by_head = index[0].int(), kept.T.contiguous()
        for head, columns in enumerate(_columns(attention)):
            out[:, columns] = multiply(incidence.of_targets, sources, by_head[head], values[:, columns])
        ctx.save_for_backward(values, queries, features, of_features, attention, mask, weights)
        ctx.incidence, ctx.slope = incidence, slope
        ctx.mark_non_differentiable(kept)
        return out, kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, received: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        values, queries, features, of_features, attention, mask, weights = ctx.saved_tensors
        incidence: Incidence = ctx.incidence
        index, width = incidence.index, values.shape[1]
        received = received.contiguous()
        kept = weights if mask is None else weights * mask
        of_values = torch.empty_like(values)
        order = incidence.by_source.long()
        targets, by_head = index[1].index_select(0, order).int(), kept.index_select(0, order).T.contiguous()
        for head, columns in enumerate(_columns(attention)):
            of_values[:, columns] = multiply(incidence.of_sources, targets, by_head[head], received[:, columns])
        blocks = _blocks(torch.ones_like(attention))
        of_weights = torch.empty_like(weights)
        for part in _parts(index, width):
            products = received.index_select(0, index[1, part]).mul_(values.index_select(0, index[0, part]))
            torch.mm(products, blocks, out=of_weights[part])
        if mask is not None:
            of_weights *= mask
        of_weights *= weights
        mean = torch.segment_reduce(of_weights, "sum", offsets=incidence.of_targets.long(), axis=0)
        of_logits = of_weights.sub_(mean.index_select(0, index[1]).mul_(weights))
        blocks = _blocks(attention)
        of_sums, of_blocks = values.new_empty(index.shape[1], width), torch.zeros_like(blocks)
        for part in _parts(index, width):
            sums = _sums(values, queries, features, of_features, index, part)
            of_active = torch.mm(of_logits[part], blocks.T)
            torch.ops.aten.leaky_relu_backward.grad_input(of_active, sums, ctx.slope, False, grad_input=of_sums[part])
            of_blocks.addmm_(functional.leaky_relu_(sums, ctx.slope).T, of_logits[part])
        ones, every = weights.new_ones(len(order)), torch.arange(len(order), dtype=torch.int32)
        of_queries = multiply(incidence.of_targets, every, ones, of_sums)
        of_values += multiply(incidence.of_sources, incidence.by_source, ones, of_sums)
        of_attention = torch.stack([of_blocks[columns, head] for head, columns in enumerate(_columns(attention))])
        of_map = None if features is None else of_sums.T @ features
        return of_values, of_queries, None, of_map, of_attention, None, None, None


def _sums(
    values: Tensor, queries: Tensor, features: Tensor | None, of_features: Tensor | None, index: Tensor, part: slice
) -> Tensor:
    """(e, F) value + query + features of some of the edges."""
    found = values.index_select(0, index[0, part]).add_(queries.index_select(0, index[1, part]))
    if features is not None and of_features is not None:
        found.addmm_(features[part], of_features.T)
    return found


def _parts(index: Tensor, width: int) -> list[slice]:
    step = max(1, _AT_ONCE // width)
    return [slice(begin, begin + step) for begin in range(0, index.shape[1], step)]


def _columns(attention: Tensor) -> list[slice]:
    """The columns of each head."""
    heads, width = attention.shape
    return [slice(head * width, (head + 1) * width) for head in range(heads)]


def _blocks(attention: Tensor) -> Tensor:
    """(F, H) the vector of each head in its own rows, so that one product makes the sums of all heads."""
    return torch.block_diag(*attention.detach()).T.contiguous()
