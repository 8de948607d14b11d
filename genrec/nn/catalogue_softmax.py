"""Cross-entropy over the items of a catalogue whose scores are sums of the scores of their digits.

Shapes: N items, C digits per item, V = C * K rows of codes over all digits, R scored targets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_AT_ONCE = 128  # targets: their rows of code scores stay in a core's cache
_SCORES_AT_ONCE = 1 << 24  # bounds the memory of a large catalogue
_SMALLEST = 1e-30


def carriers_of_codes(item_rows: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """The items (N * C,) that have a code, code by code, and where those of each code begin (V,)."""
    flat = item_rows.flatten()
    counts = torch.bincount(flat, minlength=num_rows)
    return flat.argsort(stable=True) // item_rows.shape[1], counts.cumsum(0) - counts


def catalogue_cross_entropy(
    scores: Tensor, item_rows: Tensor, carriers: Tensor, begin: Tensor, targets: Tensor
) -> Tensor:
    """-log softmax over all items at ``targets`` (R,), averaged, in nats; an item's score is the sum of its codes'.

    ``scores`` (V, R) are those of the codes, ``item_rows`` (N, C) says which codes an item has, ``carriers`` (N * C,)
    and ``begin`` (V,) the reverse. The N x R scores of the items exist for a few targets at a time, with their
    gradients. Both directions are sums of whole rows, N * C additions for each target.
    """
    return _CatalogueCrossEntropy.apply(scores, item_rows, carriers, begin, targets)  # pyright: ignore[reportReturnType]


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, item_rows: Tensor, carriers: Tensor, begin: Tensor, targets: Tensor
    ) -> Tensor:
        count, num_items = len(targets), len(item_rows)
        step = max(1, min(_AT_ONCE, _SCORES_AT_ONCE // num_items))
        of_scores = torch.empty_like(scores) if ctx.needs_input_grad[0] else None
        total = scores.new_zeros(())
        for first in range(0, count, step):
            part = slice(first, first + step)
            wanted = targets[part]
            of_items = functional.embedding_bag(item_rows, scores[:, part].contiguous(), mode="sum")  # N, R'
            errors = torch.softmax(of_items, dim=0)
            places = torch.arange(len(wanted), device=wanted.device)
            total -= errors[wanted, places].clamp_min(_SMALLEST).log().sum()
            if of_scores is not None:
                errors[wanted, places] -= 1.0
                of_scores[:, part] = functional.embedding_bag(carriers, errors, begin, mode="sum")
        if of_scores is not None:
            ctx.save_for_backward(of_scores.div_(count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (of_scores,) = ctx.saved_tensors
        return of_scores * gradient, None, None, None, None
