"""Vectors for the prefixes of semantic IDs, made of the vectors of the items that have them.

Shapes: N items (leaves of the catalogue's trie), M nodes of a level, P nodes of the level above, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from genrec.decoding.trie import Trie
from genrec.nn.tree import sums_below


class NodeVectors(nn.Module):
    """The vectors of the nodes of a trie: the sum of the vectors of the items below one, by the root of their number.

    The trie's index tensors move with the model and are not in its checkpoint, since they follow from the semantic IDs.
    """

    def __init__(self, trie: Trie) -> None:
        super().__init__()
        self.num_levels = trie.num_levels
        self.max_fan_out = trie.max_fan_out
        for level, count in enumerate(trie.num_nodes):
            begin, end = trie.leaf_range(level, torch.arange(count))
            below = (end - begin).long()
            self.register_buffer(f"first_leaf_{level}", begin.long(), persistent=False)
            node_of_leaf = torch.repeat_interleave(torch.arange(count), below)
            self.register_buffer(f"node_of_leaf_{level}", node_of_leaf, persistent=False)
            self.register_buffer(f"scale_{level}", below.float().rsqrt()[:, None], persistent=False)
            self.register_buffer(f"child_start_{level}", trie.child_start[level].long(), persistent=False)
        self.leaf_of_item: Tensor  # (N,)
        self.register_buffer("leaf_of_item", trie.leaf_of_item.long(), persistent=False)
        self.item_of_leaf: Tensor  # (N,)
        self.register_buffer("item_of_leaf", trie.items.long(), persistent=False)
        self._kept: tuple[tuple[int, ...], list[Tensor]] | None = None

    def child_start(self, level: int) -> Tensor:
        """(P + 1,) where the children of each node of the level above begin among the nodes of ``level``."""
        return getattr(self, f"child_start_{level}")

    def node_of_leaf(self, level: int) -> Tensor:
        """(N,) the node of ``level`` above each leaf, or itself."""
        return getattr(self, f"node_of_leaf_{level}")

    def forward(self, leaves: Tensor) -> list[Tensor]:
        """(M, D) of each level for the vectors (N, D) of the items in the order of the leaves, which are the last."""
        above = [
            sums_below(leaves, getattr(self, f"first_leaf_{level}"), self.node_of_leaf(level))
            * getattr(self, f"scale_{level}")
            for level in range(self.num_levels - 1)
        ]
        return [*above, leaves]

    def kept(self, make_leaves: Callable[[], Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
        """The same for recommending, made anew only when one of ``sources``, from which they are made, has changed.

        Fused optimizers change weights without PyTorch's version counters, hence ``train`` drops what is kept as well.
        """
        stamp = (*(source._version for source in sources), *(source.data_ptr() for source in sources))
        stamp = (*stamp, int(torch.is_autocast_enabled(sources[0].device.type)))
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self(make_leaves()))
        return self._kept[1]

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._kept = None
        return super().train(mode)
