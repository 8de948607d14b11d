"""Beam search over the codes of semantic IDs that only ever leaves the trie of the catalogue with an item.

B rows, W beams, K codes of a level, F the largest number of children of a node above that level, S seen items per row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError, Recommendations
from genrec.decoding.topk import as_recommendations, stable_topk
from genrec.decoding.trie import Trie


class Step(Protocol):
    """A model's next-code log-probabilities, level by level.

    At level 0 it is called with ``None, None`` and returns (B, 1, K of level 0). At each later level it gets the code
    (B, W) that every beam took at the level before and the number of the beam (B, W) it came from, by which a cache of
    the level before must be reordered; it returns (B, W, K of the level). W may differ from level to level. Dead beams
    carry code 0 and parent 0, and whatever is returned for them is not read.
    """

    def __call__(self, level: int, previous_codes: Tensor | None, parents: Tensor | None, /) -> Tensor: ...


def beam_search(
    step: Step,
    trie: Trie,
    *,
    batch_size: int,
    num_beams: int,
    device: torch.device | str,
    seen: Tensor | None = None,
) -> Recommendations:
    """The ``num_beams`` best items of each row by summed log-probability: items (B, num_beams), distinct, best first.

    Only codes that continue towards an item are ever considered, and a prefix all of whose items are in ``seen`` (B, S,
    filled with IGNORE) is dropped as soon as it appears. So every row gets min(num_beams, unseen items) items, short of
    codes whose log-probability is -inf; IGNORE fills the rest. Equal scores go to the lower item index, among prefixes
    to the better parent, then the lower code.

    With ``num_beams >= trie.num_items`` nothing is pruned and the result equals scoring every item. With fewer it is
    approximate: an item is lost where a prefix of it falls behind num_beams others. The temporaries of a level are a
    small multiple of what ``step`` returned for it, however large the catalogue.
    """

    def score(level: int, nodes: Tensor, children: Tensor, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        log_probs = step(level, codes, parents)
        expected = (*nodes.shape, trie.codebook_sizes[level])
        assert log_probs.shape == expected, f"step({level}) returned {tuple(log_probs.shape)}, not {expected}"
        return log_probs.gather(2, search.codes(level, children).expand(*nodes.shape, -1))

    search = _Search(trie, batch_size=batch_size, num_beams=num_beams, device=device, seen=seen)
    return search.run(score)


class TreeStep(Protocol):
    """A model's log-probabilities of the children of nodes of the trie, level by level.

    It gets the nodes (B, W) of the level above (0, the root, at level 0) and, as ``Step``, which beam each came from
    (B, W), ``None`` at level 0. It returns (B, W, F) for the children in order; what stands in the places beyond a
    node's children, and at dead beams, is not read.
    """

    def __call__(self, level: int, nodes: Tensor, parents: Tensor | None, /) -> Tensor: ...


def tree_search(
    step: TreeStep,
    trie: Trie,
    *,
    batch_size: int,
    num_beams: int,
    device: torch.device | str,
    seen: Tensor | None = None,
) -> Recommendations:
    """``beam_search`` for models that score the nodes of the trie instead of codes."""
    search = _Search(trie, batch_size=batch_size, num_beams=num_beams, device=device, seen=seen)
    return search.run(lambda level, nodes, children, codes, parents: step(level, nodes, parents))


class _Search:
    """The bookkeeping of a beam search; what the children of a node score is the caller's business."""

    def __init__(
        self, trie: Trie, *, batch_size: int, num_beams: int, device: torch.device | str, seen: Tensor | None
    ) -> None:
        if num_beams < 1:
            raise GenrecError(f"num_beams must be 1 or more, got {num_beams}. Use at least the largest k of k_values.")
        self.trie = trie.to(device)
        self.batch_size = batch_size
        self.num_beams = num_beams
        self.device = device
        self.seen_leaves = None if seen is None or seen.shape[1] == 0 else seen_leaves_of(self.trie, seen.to(device))

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        return self.trie.codes[level][nodes].long()

    def run(self, score: Callable[[int, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]) -> Recommendations:
        """``score(level, nodes, children, codes, parents)`` returns log-probabilities (B, W, F) of the children."""
        trie = self.trie
        nodes = torch.zeros(self.batch_size, 1, dtype=torch.int64, device=self.device)  # (B, W) the root
        scores = torch.zeros(self.batch_size, 1, device=self.device)
        codes: Tensor | None = None
        parents: Tensor | None = None
        for level in range(trie.num_levels):
            children, beyond = trie.children_of(level, nodes)
            total = scores[..., None] + score(level, nodes, children, codes, parents).float()  # (B, W, F)
            dead = (scores == -torch.inf)[..., None]
            total = total.masked_fill(dead if beyond is None else dead | beyond, -torch.inf)
            if self.seen_leaves is not None:
                total = total.masked_fill(exhausted(trie, level, children, self.seen_leaves), -torch.inf)
            fan_out = total.shape[2]
            width = min(self.num_beams, total.shape[1] * fan_out, trie.num_nodes[level])
            is_last = level == trie.num_levels - 1
            tie_keys = trie.items[children].long().expand_as(total).flatten(1) if is_last else None
            scores, slots = stable_topk(total.flatten(1), width, tie_keys)
            parents = slots // fan_out
            nodes = children.expand(self.batch_size, -1, -1).flatten(1).gather(1, slots)
            if not is_last:
                dead = scores == -torch.inf
                codes = self.codes(level, nodes).masked_fill(dead, 0)
                parents = parents.masked_fill(dead, 0)
        return as_recommendations(trie.items[nodes].long(), scores, self.num_beams)


def seen_leaves_of(trie: Trie, seen: Tensor) -> Tensor:
    """The leaves of the seen items, each once, ascending; repeated and unused places are one past the last leaf."""
    past = trie.num_items
    leaves = torch.where(seen == IGNORE, past, trie.leaf_of_item[seen.clamp(min=0)].long()).sort(dim=1).values
    repeated = torch.zeros_like(leaves, dtype=torch.bool)
    repeated[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    return leaves.masked_fill(repeated, past).sort(dim=1).values.contiguous()


def exhausted(trie: Trie, level: int, children: Tensor, seen_leaves: Tensor) -> Tensor:
    """Which children (B, W, F) lead to seen items only."""
    begin, end = trie.leaf_range(level, children)
    shape = (len(seen_leaves), *children.shape[1:])
    first, past = (torch.searchsorted(seen_leaves, edge.expand(shape).flatten(1).contiguous()) for edge in (begin, end))
    return (past - first).view(shape) == (end - begin)
