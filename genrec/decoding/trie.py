"""The catalogue's semantic IDs as a trie in flat arrays.

N items, C levels, K codes per level. The nodes of one level lie side by side in the order of their codes, and the
children of a node lie side by side in the next level, so a node is an integer and its children are a range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import GenrecError


@dataclass(frozen=True)
class Trie:
    """Which codes may follow which prefix, and the item at the end of each path.

    ``codes[l]`` (nodes of level l,) int32 is the code of each node. ``child_start[l]`` (nodes of level l - 1, plus one)
    int32: the children of node p are the nodes ``child_start[l][p] .. child_start[l][p + 1]`` of level l; for l = 0 the
    only parent is the root. ``items`` (N,) int32 names the item of each leaf, ``leaf_of_item`` (N,) int32 inverts it.
    """

    codebook_sizes: tuple[int, ...]
    codes: tuple[Tensor, ...]
    child_start: tuple[Tensor, ...]
    items: Tensor
    leaf_of_item: Tensor
    max_fan_out: tuple[int, ...]

    @classmethod
    def from_codes(cls, codes: np.ndarray, codebook_sizes: Sequence[int]) -> Self:
        """Builds the trie of ``codes`` (N, C), one unique row per item; GenrecError where rows repeat or do not fit."""
        sizes = tuple(int(size) for size in codebook_sizes)
        _check(codes, sizes)
        order = _sorted_order(codes, sizes)
        # is_new marks the leaves at which a new node of the current level begins; deeper levels only add to them.
        is_new = np.zeros(len(codes), dtype=bool)
        is_new[0] = True
        first_leaf_above = np.zeros(1, dtype=np.int64)
        level_codes, child_start, max_fan_out = [], [], []
        for level in range(len(sizes)):
            column = codes[order, level]
            is_new[1:] |= column[1:] != column[:-1]
            first_leaf = np.flatnonzero(is_new)
            start = np.append(np.searchsorted(first_leaf, first_leaf_above), len(first_leaf))
            level_codes.append(torch.from_numpy(column[first_leaf].astype(np.int32)))
            child_start.append(torch.from_numpy(start.astype(np.int32)))
            max_fan_out.append(int(np.diff(start).max()))
            first_leaf_above = first_leaf
        if len(first_leaf_above) < len(codes):
            raise GenrecError(
                f"{len(codes) - len(first_leaf_above)} of {len(codes)} items share their semantic ID with another. "
                "A path must end at one item: give each its own ID (tokenizer.collisions=extra_digit)."
            )
        leaf_of_item = np.empty(len(codes), dtype=np.int32)
        leaf_of_item[order] = np.arange(len(codes), dtype=np.int32)
        return cls(
            codebook_sizes=sizes,
            codes=tuple(level_codes),
            child_start=tuple(child_start),
            items=torch.from_numpy(order.astype(np.int32)),
            leaf_of_item=torch.from_numpy(leaf_of_item),
            max_fan_out=tuple(max_fan_out),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same trie on another device; itself where it is there already."""
        device = torch.device(device)
        if self.device == device or (device.index is None and self.device.type == device.type):
            return self
        return replace(
            self,
            codes=tuple(tensor.to(device) for tensor in self.codes),
            child_start=tuple(tensor.to(device) for tensor in self.child_start),
            items=self.items.to(device),
            leaf_of_item=self.leaf_of_item.to(device),
        )

    @property
    def device(self) -> torch.device:
        return self.items.device

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def num_levels(self) -> int:
        return len(self.codes)

    @property
    def num_nodes(self) -> tuple[int, ...]:
        """Nodes of each level; the last is the number of items."""
        return tuple(len(codes) for codes in self.codes)

    @property
    def mean_fan_out(self) -> tuple[float, ...]:
        """Children per node of the level above, averaged over those nodes."""
        above = (1, *self.num_nodes[:-1])
        return tuple(nodes / parents for nodes, parents in zip(self.num_nodes, above, strict=True))

    @property
    def nbytes(self) -> int:
        tensors = (*self.codes, *self.child_start, self.items, self.leaf_of_item)
        return sum(tensor.nbytes for tensor in tensors)

    def leaf_range(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """First leaf and one past the last below each node of ``level``; both shaped like ``nodes``, int64."""
        begin, end = nodes, nodes + 1
        for start in self.child_start[level + 1 :]:
            begin, end = start[begin].long(), start[end].long()
        return begin, end

    def path_of(self, items: Tensor) -> list[Tensor]:
        """The node at each level on the way to ``items`` (any shape), int64; the last are their leaves."""
        path = [self.leaf_of_item[items].long()]
        for start in reversed(self.child_start[1:]):
            path.insert(0, torch.searchsorted(start, path[0].to(start.dtype), right=True) - 1)
        return path

    def children_of(self, level: int, parents: Tensor) -> tuple[Tensor, Tensor | None]:
        """The nodes (..., F) of ``level`` that continue ``parents`` (...), and which of the places hold none.

        F is the largest number of children of a node; None where every place holds a node, as below the root.
        """
        places = torch.arange(self.max_fan_out[level], device=self.device)
        if level == 0:
            return places.expand(*parents.shape, -1), None
        start = self.child_start[level][parents].long()[..., None]
        past = self.child_start[level][parents + 1].long()[..., None]
        beyond = start + places >= past
        return torch.where(beyond, start, start + places), beyond

    def items_at(self, prefix: Sequence[int]) -> Tensor:
        """The items, ascending, whose semantic IDs begin with ``prefix``; none where no item does."""
        if len(prefix) > self.num_levels:
            raise GenrecError(
                f"A semantic ID has {self.num_levels} codes; the prefix {list(prefix)} has {len(prefix)}."
            )
        begin, end = 0, 1  # the range of nodes that match so far; the root to begin with
        for level, code in enumerate(prefix):
            first, past = (int(self.child_start[level][node]) for node in (begin, end))
            children = self.codes[level][first:past].contiguous()
            low, high = (int(torch.searchsorted(children, int(code), right=right)) for right in (False, True))
            if low == high:
                return self.items[:0].long()
            begin, end = first + low, first + high
        for start in self.child_start[len(prefix) :]:
            begin, end = int(start[begin]), int(start[end])
        return self.items[begin:end].long().sort().values


def _check(codes: np.ndarray, sizes: tuple[int, ...]) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or 0 in codes.shape:
        raise GenrecError(
            f"A trie needs a table of items x levels and one codebook size per level; got codes of shape {codes.shape} "
            f"and {len(sizes)} codebook sizes. Give the codes of a fitted tokenizer."
        )
    if codes.min() < 0 or (codes.max(axis=0) >= np.array(sizes)).any():
        raise GenrecError(
            f"Codes must lie in 0..size-1 of their level; sizes are {sizes}, found {codes.min(axis=0).tolist()} to "
            f"{codes.max(axis=0).tolist()}. Give the codebook_sizes that the codes were made with."
        )


def _sorted_order(codes: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The items in the order of their codes, level by level."""
    if np.prod([float(size) for size in sizes]) >= 2.0**62:
        return np.lexsort(codes.T[::-1])
    # One integer per row sorts several times faster than one column after the other.
    key = codes[:, 0].astype(np.int64)
    for level, size in enumerate(sizes[1:], start=1):
        key = key * size + codes[:, level]
    return np.argsort(key)
