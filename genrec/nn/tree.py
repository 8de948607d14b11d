"""A softmax over the children of tree nodes, whose vectors are made of the leaves below them.

Shapes: N leaves (items), M nodes of a level, P nodes of the level above, R queries, F the largest number of children,
D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_BLOCK = 8  # queries of one parent that share a product
_STEP = 32  # blocks are filled up to a multiple: the first bfloat16 product of a shape costs milliseconds on a CPU
_LARGE_FAMILY = 32  # from here on a CPU loses more by filling families up to the largest than by a loop over them


def sums_below(leaves: Tensor, first_leaf: Tensor, node_of_leaf: Tensor) -> Tensor:
    """(M, D) the sum of the leaf vectors (N, D) below each node.

    The leaves below a node lie side by side: node m begins at ``first_leaf[m]`` (M,), ``node_of_leaf`` (N,) inverts it.
    """
    return _SumsBelow.apply(leaves, first_leaf, node_of_leaf)  # pyright: ignore[reportReturnType]


class _SumsBelow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaves: Tensor, first_leaf: Tensor, node_of_leaf: Tensor) -> Tensor:
        ctx.save_for_backward(node_of_leaf)
        places = torch.arange(len(leaves), device=leaves.device)
        return functional.embedding_bag(places, leaves, first_leaf, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (node_of_leaf,) = ctx.saved_tensors
        return gradient.index_select(0, node_of_leaf), None, None


def child_logits(
    queries: Tensor, parents: Tensor, child_start: Tensor, vectors: Tensor, biases: Tensor, fan_out: int
) -> Tensor:
    """(R, F) float32 scores of the children of each query's parent: products (R, D) x (M, D), plus ``biases`` (M,).

    ``child_start`` (P + 1,) bounds the children of each parent among ``vectors``; -inf where a parent (R,) has fewer
    than F = ``fan_out``. Queries of one parent are put together in blocks, so that its children's vectors are read once
    per block and not once per query; large families are multiplied one by one, where they stand.
    """
    device = parents.device
    order = parents.argsort(stable=True)
    group, counts = torch.unique_consecutive(parents[order], return_counts=True)
    if device.type == "cpu" and fan_out > _LARGE_FAMILY:
        sizes = child_start[group + 1] - child_start[group]
        families = _Families(counts.tolist(), sizes.tolist(), child_start[group].tolist())
        wide = torch.promote_types(queries.dtype, vectors.dtype)  # these products are too small for narrow types to pay
        products = _FamilyProducts.apply(queries.index_select(0, order).to(wide), vectors.to(wide), families)
        inside = torch.arange(fan_out) < torch.repeat_interleave(sizes, counts)[:, None]
        children = (child_start[parents[order], None] + torch.arange(fan_out)).masked_select(inside)
        products = products + biases.index_select(0, children)
        scores = products.new_full(inside.shape, -torch.inf).masked_scatter_(inside, products)
        return scores.index_select(0, order.argsort())
    blocks = (counts + _BLOCK - 1) // _BLOCK  # of each group
    number = torch.repeat_interleave(torch.arange(len(group), device=device), counts)
    rank = torch.arange(len(parents), device=device) - (counts.cumsum(0) - counts)[number]
    slots = torch.empty_like(order)  # where each query stands among the blocks
    slots[order] = (blocks.cumsum(0) - blocks)[number] * _BLOCK + rank
    owners = torch.repeat_interleave(group, blocks)  # T, the parent of each block
    owners = functional.pad(owners, (0, -len(owners) % _STEP))
    places = child_start[owners, None] + torch.arange(fan_out, device=device)
    beyond = places >= child_start[owners + 1, None]
    places = places.masked_fill(beyond, 0)
    packed = queries.new_zeros(len(owners) * _BLOCK, queries.shape[1]).index_copy(0, slots, queries)
    children = functional.embedding(places, vectors.to(queries.dtype))  # (T, F, D)
    products = torch.bmm(packed.view(len(owners), _BLOCK, -1), children.mT).float()
    scores = products + biases[places].masked_fill(beyond, -torch.inf)[:, None]
    return scores.flatten(0, 1).index_select(0, slots)


@dataclass(frozen=True)
class _Families:
    """Families of children: how many queries and children each has, and where its children begin in their table."""

    num_queries: list[int]
    num_children: list[int]
    first_child: list[int]

    def of_table(self, table: Tensor) -> list[Tensor]:
        """The children of each family in a table (M, D), as views."""
        places = zip(self.first_child, self.num_children, strict=True)
        return [table[first : first + count] for first, count in places]


class _FamilyProducts(torch.autograd.Function):
    """The products of queries (R, D), sorted by family, with the vectors of their families, row after row in one row.

    A family's vectors are read where they stand in their table (M, D), and their gradient is written where it belongs:
    nothing is copied, and no place is filled up.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, families: _Families) -> Tensor:
        ctx.save_for_backward(queries, vectors)
        ctx.families = families
        with torch.autocast("cpu", enabled=False):
            pairs = zip(queries.split(families.num_queries), families.of_table(vectors), strict=True)
            return torch.cat([torch.mm(query, children.T).flatten() for query, children in pairs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, vectors = ctx.saved_tensors
        families: _Families = ctx.families
        sizes = list(zip(families.num_queries, families.num_children, strict=True))
        parts = gradient.split([rows * columns for rows, columns in sizes])
        products = [part.view(size) for part, size in zip(parts, sizes, strict=True)]
        of_vectors = torch.zeros_like(vectors)
        members = zip(products, families.of_table(vectors), strict=True)
        of_queries = torch.cat([torch.mm(product, children) for product, children in members])
        places = zip(products, queries.split(families.num_queries), families.of_table(of_vectors), strict=True)
        for product, query, place in places:
            torch.mm(product.T, query, out=place)
        return of_queries, of_vectors, None


def logits_of_children(
    queries: Tensor, parents: Tensor, child_start: Tensor, vectors: Tensor, biases: Tensor, fan_out: int
) -> Tensor:
    """(R, F) float32 as ``child_logits``, without gradients; for decoding.

    Each product is made by itself, and none for places that hold no child, of which there are many: the largest family
    is several times the mean. Nothing is sorted, packed or copied, which a gradient would need but a few beams do not.
    """
    start = child_start[parents]
    counts = child_start[parents + 1] - start
    ends = counts.cumsum(0)
    owners = torch.repeat_interleave(torch.arange(len(queries), device=queries.device), counts)  # (children of all,)
    children = torch.arange(len(owners), device=queries.device) + (start - ends + counts)[owners]
    # The dot product of each child's vector with its owner's query: what a weighted embedding bag does backwards.
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        queries.float(), vectors, children, ends - counts, owners, 0
    )
    logits = torch.full((len(queries), fan_out), -torch.inf, device=queries.device)
    inside = torch.arange(fan_out, device=queries.device) < counts[:, None]
    return logits.masked_scatter_(inside, products + biases[children])
