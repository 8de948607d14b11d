"""Beam search over the codes of semantic IDs that only ever leaves the trie of the catalogue with an item.

B rows, W beams, K codes of a level, F the largest number of children of a node above that level, S seen items per row.
"""

from __future__ import annotations

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
    if num_beams < 1:
        raise GenrecError(f"num_beams must be 1 or more, got {num_beams}. Use at least the largest k of k_values.")
    trie = trie.to(device)
    seen_leaves = None if seen is None or seen.shape[1] == 0 else _seen_leaves(trie, seen.to(device))
    nodes = torch.zeros(batch_size, 1, dtype=torch.int64, device=device)  # (B, W) the root
    scores = torch.zeros(batch_size, 1, device=device)
    codes: Tensor | None = None
    parents: Tensor | None = None
    for level in range(trie.num_levels):
        log_probs = step(level, codes, parents)
        children, alive = _children(trie, level, nodes)
        total = _extend(trie, level, scores, log_probs, children, alive)
        if seen_leaves is not None:
            total = total.masked_fill(_exhausted(trie, level, children, seen_leaves), -torch.inf)
        fan_out = total.shape[2]
        width = min(num_beams, total.shape[1] * fan_out, trie.num_nodes[level])
        is_last = level == trie.num_levels - 1
        tie_keys = trie.items[children].long().expand_as(total).flatten(1) if is_last else None
        scores, slots = stable_topk(total.flatten(1), width, tie_keys)
        parents = slots // fan_out
        nodes = children.expand(batch_size, -1, -1).flatten(1).gather(1, slots)
        if not is_last:
            dead = scores == -torch.inf
            codes = trie.codes[level][nodes].long().masked_fill(dead, 0)
            parents = parents.masked_fill(dead, 0)
    return as_recommendations(trie.items[nodes].long(), scores, num_beams)


def _children(trie: Trie, level: int, nodes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Children (B, W, F) of the nodes (B, W) of the level above, and which of these places hold one (None: all do)."""
    fan_out = trie.max_fan_out[level]
    place = torch.arange(fan_out, device=nodes.device)
    if level == 0:
        return place.view(1, 1, -1), None
    start = trie.child_start[level][nodes].long()
    count = trie.child_start[level][nodes + 1].long() - start
    alive = place < count[..., None]
    return torch.where(alive, start[..., None] + place, start[..., None]), alive


def _extend(
    trie: Trie, level: int, scores: Tensor, log_probs: Tensor, children: Tensor, alive: Tensor | None
) -> Tensor:
    """Summed log-probabilities (B, W, F) of the children, -inf for places that hold none."""
    expected = (*scores.shape, trie.codebook_sizes[level])
    assert log_probs.shape == expected, f"step({level}) returned {tuple(log_probs.shape)}, not {expected}"
    codes = trie.codes[level][children].long()
    total = scores[..., None] + log_probs.float().gather(2, codes.expand(*scores.shape, -1))
    dead = (scores == -torch.inf)[..., None]
    return total.masked_fill(dead if alive is None else dead | ~alive, -torch.inf)


def _seen_leaves(trie: Trie, seen: Tensor) -> Tensor:
    """The leaves of the seen items, each once, ascending; repeated and unused places are one past the last leaf."""
    past = trie.num_items
    leaves = torch.where(seen == IGNORE, past, trie.leaf_of_item[seen.clamp(min=0)].long()).sort(dim=1).values
    repeated = torch.zeros_like(leaves, dtype=torch.bool)
    repeated[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    return leaves.masked_fill(repeated, past).sort(dim=1).values.contiguous()


def _exhausted(trie: Trie, level: int, children: Tensor, seen_leaves: Tensor) -> Tensor:
    """Which children (B, W, F) lead to seen items only."""
    begin, end = trie.leaf_range(level, children)
    shape = (len(seen_leaves), *children.shape[1:])
    first, past = (torch.searchsorted(seen_leaves, edge.expand(shape).flatten(1).contiguous()) for edge in (begin, end))
    return (past - first).view(shape) == (end - begin)
