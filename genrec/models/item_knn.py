"""Items that stood near the history's items in other users' sequences: co-occurrence alone, nothing to train.

N items, M neighbours kept per item, E neighbours kept in all, B users, L history length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count, Share, check_arguments
from genrec.contracts import DataSpec, GenrecError, HistoryBatch, Recommendations, Task
from genrec.decoding.topk import rank_rows
from genrec.nn.recency import recency_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from genrec.data.ragged import Ragged

_PAIRS_AT_ONCE = 1 << 23  # pairs collected before they are added up: bounds memory on long sequences
_SCORES_AT_ONCE = 1 << 20  # sums in float64 that stay in cache


class ItemKNN(nn.Module):
    """Sums the similarities of every item to the last items of a history, recent ones counting more.

    Two items form a pair each time they stand at most ``window`` steps apart (None: anywhere) in one training row,
    worth 1, or 1 / d at d steps with ``distance_weight="inverse"``. ``direction="forward"`` counts for an item what
    came after it, ``"both"`` what came before it too. ``similarity="cosine"`` divides by the root of the product of
    both items' counts (Sarwar et al., 2001), ``"count"`` leaves the sum. The ``num_neighbors`` nearest are kept per
    item. Items that no neighbour reaches follow at negative scores, the frequent first.
    """

    view = "sequences"
    task = Task.RETRIEVAL
    training_mode = "positions"

    def __init__(
        self,
        spec: DataSpec,
        *,
        num_neighbors: Count = 200,
        similarity: Literal["cosine", "count"] = "count",
        window: Count | None = 10,
        distance_weight: Literal["none", "inverse"] = "inverse",
        direction: Literal["both", "forward"] = "forward",
        decay: Share = 0.5,
        max_history: Count = 50,
    ) -> None:
        check_arguments(ItemKNN.__init__, locals(), "model")
        super().__init__()
        if spec.train is None:
            raise GenrecError("ItemKNN counts training pairs and no training part was given. Choose a data source.")
        self.max_history = max_history
        self.decay = decay
        pairs = _count_pairs(spec.train, spec.num_items, window=window, inverse=distance_weight == "inverse")
        if direction == "both":
            pairs = pairs + pairs.T.tocsr()
        counts = np.bincount(spec.train.values, minlength=spec.num_items)
        if similarity == "cosine":
            norm = np.sqrt(np.maximum(counts, 1).astype(np.float64))
            rows = np.repeat(np.arange(spec.num_items), np.diff(pairs.indptr))
            pairs.data /= norm[rows] * norm[pairs.indices]
        offsets, neighbors, weights = _nearest(pairs, num_neighbors)
        self.offsets: Tensor  # (N + 1,) the neighbours of item i are neighbors[offsets[i] : offsets[i + 1]]
        self.neighbors: Tensor  # (E,) int32
        self.weights: Tensor  # (E,)
        self.fallback: Tensor  # (N,) scores in (-1, 0) of items that no neighbour reaches
        self.register_buffer("offsets", torch.from_numpy(offsets))
        self.register_buffer("neighbors", torch.from_numpy(neighbors.astype(np.int32)))
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))
        self.register_buffer("fallback", torch.from_numpy((-1.0 / (2.0 + counts)).astype(np.float32)))
        self.width = int(np.diff(offsets).max(initial=0))

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k unseen items of largest summed similarity; scores below zero mean that no neighbour was left."""
        recency = recency_weights(batch.lengths, batch.items.shape[1], decay=self.decay, num_recent=self.max_history)
        # A chunk holds a row of scores and a row of gathered neighbours per user, whichever is longer counts.
        widest = max(len(self.fallback), batch.items.shape[1] * self.width)
        return rank_rows(
            lambda rows: self._scores(batch.items[rows], recency[rows]),
            num_rows=len(batch.lengths),
            num_items=widest,
            k=k,
            seen=batch.seen,
            max_scores=_SCORES_AT_ONCE,
        )

    def _scores(self, items: Tensor, recency: Tensor) -> Tensor:
        """(B, N) summed similarities."""
        if self.width == 0:
            return self.fallback.expand(len(items), -1)
        start, end = self.offsets[items], self.offsets[items + 1]
        edges = start[..., None] + torch.arange(self.width, device=items.device)  # (B, L, M)
        exists = edges < end[..., None]
        edges = torch.where(exists, edges, 0)
        weights = torch.where(exists, self.weights[edges] * recency[..., None], 0.0)
        # Summed in float64, so that the order of summation (open on a GPU) does not show in float32.
        scores = torch.zeros(len(items), len(self.fallback), dtype=torch.float64, device=items.device)
        scores.scatter_add_(1, self.neighbors[edges].long().flatten(1), weights.double().flatten(1))
        scores = scores.float()
        return torch.where(scores > 0, scores, self.fallback)


def _count_pairs(train: Ragged, num_items: int, *, window: int | None, inverse: bool) -> csr_array:
    """(N, N) float64: how often the item of the column came after that of the row; nothing on the diagonal."""
    from scipy.sparse import csr_array

    values, lengths = train.values, train.lengths
    left_over = np.repeat(train.offsets[1:], lengths) - np.arange(len(values)) - 1  # items after each in its row
    longest = int(lengths.max(initial=1)) - 1
    total = csr_array((num_items, num_items), dtype=np.float64)
    lefts, rights, weights, collected = [], [], [], 0
    left = np.arange(len(values))
    for step in range(1, min(window or longest, longest) + 1):
        left = left[left_over[left] >= step]
        pair = left[values[left] != values[left + step]]
        lefts.append(values[pair])
        rights.append(values[pair + step])
        weights.append(np.full(len(pair), 1.0 / step if inverse else 1.0))
        collected += len(pair)
        if collected >= _PAIRS_AT_ONCE:
            total = total + _summed(lefts, rights, weights, num_items)
            lefts, rights, weights, collected = [], [], [], 0
    if collected:
        total = total + _summed(lefts, rights, weights, num_items)
    return total


def _summed(lefts: list[np.ndarray], rights: list[np.ndarray], weights: list[np.ndarray], size: int) -> csr_array:
    from scipy.sparse import coo_array

    where = (np.concatenate(lefts), np.concatenate(rights))
    return coo_array((np.concatenate(weights), where), shape=(size, size)).tocsr()  # adds up repeated pairs


def _nearest(pairs: csr_array, num_neighbors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (N + 1,), items (E,) and similarities (E,) of each item's nearest, nearest first, ties by lower index."""
    lengths = np.diff(pairs.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((pairs.indices, np.negative(np.asarray(pairs.data)), rows))
    kept = order[np.arange(len(rows)) - pairs.indptr[:-1][rows] < num_neighbors]
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, num_neighbors))]).astype(np.int64)
    return offsets, pairs.indices[kept], pairs.data[kept]
