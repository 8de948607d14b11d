"""Long unordered semantic IDs by optimised product quantisation: every digit codes a subspace of its own.

Shapes: N items, C digits, K codes per digit, D width. Source: RPG (Hou et al. 2025, arXiv 2506.05781, section 3.1).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from genrec.contracts import GenrecError, RunContext
from genrec.nn.kmeans import squared_distances
from genrec.nn.product_quantizer import ProductQuantizer, optimised_product_quantizer
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.features import principal_components
from genrec.tokenizers.quality import check_levels, clipped_codebook_size, quality_report
from genrec.tokenizers.result import TokenizerResult
from genrec.tokenizers.sharing import Crew, crew_of, given, in_batches, shared_features

if TYPE_CHECKING:
    from genrec.data.ragged import Ragged

_TRAINING_SAMPLE = 65_536  # codebooks are fitted to this many items at most
_BATCH = 65_536  # items encoded at a time
_MOVING_AT_ONCE = 4_096  # items whose distances to all codes are held


@dataclass(kw_only=True)
class OPQ:
    """Semantic IDs of ``num_levels`` digits that say different things about an item and have no order.

    ``whiten`` gives every principal component of the features the same variance, as RPG does. An item whose code is
    taken gets the nearest one that is free, so there is no further digit.
    """

    shares_work: ClassVar[bool] = True  # several processes may call ``fit`` together; the leader has the result

    num_levels: int = 32
    codebook_size: int = 256
    text_dim: int = 96
    collaborative_dim: int = 64
    window: int = 3
    whiten: bool = False
    max_iters: int = 30

    def __post_init__(self) -> None:
        check_levels(self.num_levels, self.codebook_size)
        if self.max_iters < 1:
            raise GenrecError(f"tokenizer.max_iters must be at least 1, got {self.max_iters}.")

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        crew = crew_of(context)
        features = shared_features(crew, self, vectors, train, context.seed)
        if self.whiten:
            features = whitened(features)
        size = clipped_codebook_size(self.codebook_size, self.num_levels, len(features))
        points = torch.from_numpy(features)
        quantizer = self._quantizer(points, size, context.seed, crew)
        codes = in_batches(crew, lambda batch: (quantizer.encode(batch),), points, _BATCH)[0]
        unique = nearest_free_codes(codes.numpy(), points, quantizer)
        rebuilt = torch.cat([quantizer.decode(batch) for batch in codes.split(_BATCH)]).numpy()
        codebooks = [codebook.numpy() for codebook in quantizer.codebooks_of_points()]
        ids = SemanticIds(unique, (size,) * self.num_levels, self.num_levels)
        return TokenizerResult(ids, quality_report(features, rebuilt, codes.numpy(), codebooks), codebooks)

    def _quantizer(self, points: torch.Tensor, size: int, seed: int, crew: Crew | None) -> ProductQuantizer:
        """Fitted by the leader, for all; the sample is too small to be worth dividing."""
        if crew is not None and not crew.leads:
            return ProductQuantizer(*(torch.from_numpy(given(crew, lambda: np.empty(0))) for _ in range(2)))
        found = optimised_product_quantizer(
            _sample(points, seed), self.num_levels, size, seed=seed, max_iters=self.max_iters
        )
        for part in (found.rotation, found.codebooks):
            given(crew, part.numpy)
        return found


def whitened(features: np.ndarray) -> np.ndarray:
    """(N, <= D) float32 principal components of features (N, D), each of variance 1; those of noise are left out."""
    components = principal_components(features - features.mean(axis=0, dtype=np.float64), features.shape[1])
    deviations = components.std(axis=0, dtype=np.float64)
    kept = deviations > 1e-4 * deviations.max(initial=0.0)
    if not kept.any():  # all items alike
        return components
    return np.ascontiguousarray(components[:, kept] / deviations[kept], dtype=np.float32)


def nearest_free_codes(codes: np.ndarray, points: torch.Tensor, quantizer: ProductQuantizer) -> np.ndarray:
    """(N, C) codes that no two items share: of equal rows the first keeps it, each other moves to the nearest free one.

    Almost always a single digit changes, to its second nearest code. Raises when there are more items than IDs.
    """
    num_codes = quantizer.codebooks.shape[1]
    if len(codes) > num_codes ** codes.shape[1]:
        raise GenrecError(
            f"{len(codes)} items need as many IDs, but {codes.shape[1]} digits of {num_codes} codes name only "
            f"{num_codes ** codes.shape[1]}. Raise tokenizer.num_levels or tokenizer.codebook_size."
        )
    narrow = np.min_scalar_type(num_codes - 1)  # the rows are sorted, and kept in a set
    codes = np.array(codes, dtype=narrow, order="C")
    firsts = np.unique(codes.view(np.dtype((np.void, codes.shape[1] * codes.itemsize)))[:, 0], return_index=True)[1]
    is_first = np.zeros(len(codes), dtype=bool)
    is_first[firsts] = True
    moving = np.flatnonzero(~is_first)
    if not len(moving):
        return codes.astype(np.int64)
    taken = {row.tobytes() for row in codes[firsts]}
    alike = _of_equal_points(points, moving)
    queues: dict[int, Iterator[np.ndarray]] = {}  # of points that several items have: each goes on where the last was
    for begin in range(0, len(moving), _MOVING_AT_ONCE):
        items = moving[begin : begin + _MOVING_AT_ONCE]
        parts = quantizer.rotated(points[torch.from_numpy(items)])  # C, items, E
        pairs = zip(parts, quantizer.codebooks, strict=True)
        distances = torch.stack([squared_distances(part, book) for part, book in pairs], dim=1).double().numpy()
        for item, costs in zip(items.tolist(), distances, strict=True):
            rows = queues.get(alike.get(item, -1)) or _by_cost(costs, codes.dtype)
            codes[item] = next(row for row in rows if row.tobytes() not in taken)
            taken.add(codes[item].tobytes())
            if item in alike:
                queues[alike[item]] = rows
    return codes.astype(np.int64)


def _of_equal_points(points: torch.Tensor, items: np.ndarray) -> dict[int, int]:
    """Of those ``items`` whose points (N, D) are equal to another's, the first of the equal ones."""
    first: dict[bytes, int] = {}
    found: dict[int, int] = {}
    for item in items.tolist():
        earlier = first.setdefault(blake2b(points[item].numpy().tobytes(), digest_size=16).digest(), item)
        if earlier != item:
            found[item] = found[earlier] = earlier
    return found


def _by_cost(costs: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """All rows of codes (C,) of ``dtype`` in the order of their total cost (C, K).

    Each is a rank per digit, and what follows it raises the rank of one digit, the last one raised or a later one, so
    that no row is met twice.
    """
    order = np.argsort(costs, axis=1, kind="stable")
    sorted_costs = np.take_along_axis(costs, order, axis=1)
    order = order.astype(dtype)
    digits = np.arange(len(costs))
    queue: list[tuple[float, Sequence[int], int]] = [(0.0, (0,) * len(costs), 0)]
    while queue:
        cost, ranks, last = heapq.heappop(queue)
        yield order[digits, ranks]
        for digit in range(last, len(costs)):
            rank = ranks[digit]
            if rank + 1 < costs.shape[1]:
                step = float(sorted_costs[digit, rank + 1] - sorted_costs[digit, rank])
                heapq.heappush(queue, (cost + step, (*ranks[:digit], rank + 1, *ranks[digit + 1 :]), digit))


def _sample(points: torch.Tensor, seed: int) -> torch.Tensor:
    if len(points) <= _TRAINING_SAMPLE:
        return points
    generator = torch.Generator().manual_seed(seed)
    return points[torch.randperm(len(points), generator=generator)[:_TRAINING_SAMPLE]]
