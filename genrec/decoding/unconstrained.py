"""Beam search that may leave the catalogue: what a model would say if no trie held it, for reports only.

B rows, W beams, C levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genrec.contracts import IGNORE
from genrec.decoding.beam import Step
from genrec.decoding.topk import stable_topk
from genrec.decoding.trie import Trie


@dataclass(frozen=True)
class Beams:
    """Code sequences ``codes`` (B, W, C), best first, and their log-probabilities ``scores`` (B, W); -inf is none."""

    codes: Tensor
    scores: Tensor


def unconstrained_beams(
    step: Step, codebook_sizes: Sequence[int], *, batch_size: int, num_beams: int, device: torch.device | str
) -> Beams:
    """The ``num_beams`` likeliest code sequences found, items or not; ``step`` as in ``beam_search``."""
    scores = torch.zeros(batch_size, 1, device=device)
    codes = torch.zeros(batch_size, 1, 0, dtype=torch.int64, device=device)
    parents: Tensor | None = None
    for level, size in enumerate(codebook_sizes):
        log_probs = step(level, None if parents is None else codes[..., -1], parents)
        total = (scores[..., None] + log_probs.float()).flatten(1)
        scores, slots = stable_topk(total, min(num_beams, total.shape[1]))
        parents = slots // size
        history = codes.gather(1, parents[..., None].expand(-1, -1, level))
        codes = torch.cat([history, (slots % size)[..., None]], dim=2)
    return Beams(codes, scores)


def items_of(trie: Trie, codes: Tensor) -> Tensor:
    """The item (...) that each code sequence (..., C) names, IGNORE where it names none."""
    nodes = torch.zeros(codes.shape[:-1], dtype=torch.int64, device=codes.device)
    found = torch.ones_like(nodes, dtype=torch.bool)
    for level in range(trie.num_levels):
        wanted = codes[..., level]
        low, end = (trie.child_start[level][nodes + step].long() for step in (0, 1))
        past = end
        # All nodes at once, each halving its own range of children down to the first code not below the wanted one.
        for _ in range(trie.max_fan_out[level].bit_length()):
            middle = (low + past) // 2
            below = (low < past) & (trie.codes[level][middle.clamp(max=len(trie.codes[level]) - 1)] < wanted)
            low, past = torch.where(below, middle + 1, low), torch.where(below, past, middle)
        nodes = low.clamp(max=len(trie.codes[level]) - 1)
        found &= (low < end) & (trie.codes[level][nodes] == wanted)
    return torch.where(found, trie.items[nodes].long(), IGNORE)


def illegal_share(beams: Beams, trie: Trie) -> float:
    """The share of finished beams that name no item; 0.0 where there are no beams."""
    alive = beams.scores > -torch.inf
    illegal = alive & (items_of(trie, beams.codes) == IGNORE)
    return float(illegal.sum()) / max(int(alive.sum()), 1)
