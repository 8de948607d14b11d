"""Collision policies: how items that were quantised to the same codes get semantic IDs of their own.

Shapes: N items, C content levels, K codes per level, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final, Literal, get_args

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from genrec.contracts import GenrecError
from genrec.nn.kmeans import place
from genrec.semantic_ids import SemanticIds

Policy = Literal["extra_digit", "sinkhorn", "expand"]
EXTRA_DIGIT: Final = "extra_digit"
SINKHORN: Final = "sinkhorn"
EXPAND: Final = "expand"
POLICIES = get_args(Policy)


def check_policy(policy: str) -> None:
    """Raises when ``policy`` is no collision policy."""
    if policy not in POLICIES:
        raise GenrecError(f"tokenizer.collisions={policy} is unknown. Choose one of: {', '.join(POLICIES)}.")


def resolve_collisions(
    policy: str,
    codes: np.ndarray,
    *,
    vectors: np.ndarray,
    codebooks: Sequence[np.ndarray],
    popularity: np.ndarray,
) -> SemanticIds:
    """Unique semantic IDs from content ``codes`` (N, C), which quantise ``vectors`` (N, D) by ``codebooks`` C x (K, D).

    - ``extra_digit``: a last level counts the items that share their content codes, in the order of the item index
      (TIGER, section 3.1). It is there even without collisions, so that every run has IDs of the same length.
    - ``expand``: the same level, counted by ``popularity`` (N,) in the training part, most popular first. Decoding
      expands a shared content ID into its items in this order, and digit 0 means the same under every content ID:
      the item most likely wanted, which a model can learn and an item index cannot teach.
    - ``sinkhorn``: no further level; colliding items move to free codes at the least total squared distance.
    """
    check_policy(policy)
    sizes = tuple(len(codebook) for codebook in codebooks)
    if policy == SINKHORN:
        return SemanticIds(spread_codes(codes, vectors, codebooks), sizes, len(sizes))
    order = np.argsort(-popularity, kind="stable") if policy == EXPAND else np.arange(len(codes))
    digits = count_within_groups(codes, order)
    return SemanticIds(np.column_stack([codes, digits]), (*sizes, int(digits.max(initial=0)) + 1), len(sizes))


def count_within_groups(codes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,) the rank of each item among those with equal ``codes``; ``order`` (N,) lists the items first to last."""
    groups = group_numbers(codes)
    by_group = order[np.argsort(groups[order], kind="stable")]
    sizes = np.bincount(groups)
    digits = np.empty(len(codes), dtype=np.int64)
    digits[by_group] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return digits


def group_numbers(codes: np.ndarray) -> np.ndarray:
    """(N,) equal numbers for items of equal ``codes`` (N, C), counting from 0 in the order of the codes."""
    sizes = [int(size) + 1 for size in codes.max(axis=0, initial=0)]
    if codes.shape[1] and codes.min(initial=0) >= 0 and prod(sizes) < 2**62:
        keys = np.asarray(np.ravel_multi_index(tuple(codes.T), tuple(sizes)))  # one number sorts faster than a row
        return np.unique(keys, return_inverse=True)[1]
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def spread_codes(codes: np.ndarray, vectors: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """(N, C) unique codes near ``codes``: optimal transport of colliding items to free codes, level by level.

    Items that share codes 0..c-1 are the node of a tree; a child has room for as many items as there are IDs below it.
    Where more items want a child than fit (on the last level: whenever two do) the nearest keep it and the others move
    to children with room, at the least total squared distance. Raises when there are more items than IDs.
    """
    sizes = [len(codebook) for codebook in codebooks]
    if len(codes) > prod(sizes):
        raise GenrecError(
            f"collisions=sinkhorn cannot give {len(codes)} items unique IDs: {' x '.join(map(str, sizes))} codes name "
            f"only {prod(sizes)}. Raise tokenizer.num_levels or tokenizer.codebook_size, or use collisions=extra_digit."
        )
    codes = np.array(codes, dtype=np.int64)
    residuals = np.array(vectors, dtype=np.float64)
    for level, codebook in enumerate(codebooks):
        room = prod(sizes[level + 1 :])
        wanted = codes[:, level].copy()
        for members in _crowded_nodes(codes[:, : level + 1], room):
            codes[members, level] = _balanced_choice(residuals[members], codebook, codes[members, level], room)
        moved = np.flatnonzero(codes[:, level] != wanted)
        residuals -= codebook[codes[:, level]]
        _requantise(codes, residuals, moved, codebooks, level + 1)
    return codes


def _crowded_nodes(prefixes: np.ndarray, room: int) -> list[np.ndarray]:
    """The items of each parent node with a child of more than ``room`` items; ``prefixes`` ends with the child."""
    child = group_numbers(prefixes)
    counts = np.bincount(child)
    if counts.max(initial=0) <= room:
        return []
    parent_of_item = group_numbers(prefixes[:, :-1])
    is_crowded = np.zeros(len(prefixes), dtype=bool)  # by the number of the parent
    is_crowded[parent_of_item[counts[child] > room]] = True
    items = np.flatnonzero(is_crowded[parent_of_item])
    items = items[np.argsort(parent_of_item[items], kind="stable")]
    return np.split(items, np.flatnonzero(np.diff(parent_of_item[items])) + 1)


def _balanced_choice(points: np.ndarray, codebook: np.ndarray, wanted: np.ndarray, room: int) -> np.ndarray:
    """(M,) codes with at most ``room`` items each: the nearest keep what they want, the others go where there is room.

    With room for one the assignment of the others is optimal; with more (rare: a node fuller than the IDs below it)
    they are placed by deferred acceptance, which stays fast for thousands of them.
    """
    distances = _squared_distances(points, codebook)
    everyone = np.arange(len(points))
    order = np.lexsort((distances[everyone, wanted], wanted))
    counts = np.bincount(wanted, minlength=len(codebook))
    rank = np.empty(len(points), dtype=np.int64)
    rank[order] = everyone - np.repeat(np.cumsum(counts) - counts, counts)
    moving = np.flatnonzero(rank >= room)
    free = np.maximum(room - counts, 0)
    chosen = wanted.copy()
    if room == 1:
        slots = np.flatnonzero(free)
        rows, columns = linear_sum_assignment(distances[moving][:, slots])
        chosen[moving[rows]] = slots[columns]
    else:
        chosen[moving] = place(torch.from_numpy(distances[moving]), torch.from_numpy(free)).numpy()
    return chosen


def _requantise(
    codes: np.ndarray, residuals: np.ndarray, moved: np.ndarray, codebooks: Sequence[np.ndarray], level: int
) -> None:
    """Codes of the ``moved`` items from ``level`` on, nearest to what is left of them under their new prefix."""
    rest = residuals[moved]
    for deeper in range(level, len(codebooks)):
        codes[moved, deeper] = _squared_distances(rest, codebooks[deeper]).argmin(1)
        rest = rest - codebooks[deeper][codes[moved, deeper]]


def _squared_distances(points: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    centres = codebook.astype(np.float64)
    return (points**2).sum(1, keepdims=True) - 2 * points @ centres.T + (centres**2).sum(1)
