"""Items that stood near the history's items in other users' sequences: co-occurrence alone, nothing to train.

N items, M neighbours kept per item, E neighbours kept in all, B users, L history length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Share, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, Recommendations, Task
from genrec.decoding.topk import rank_items, rank_rows
from genrec.nn.recency import recency_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from genrec.data.ragged import Ragged

_PAIRS_AT_ONCE = 1 << 23  # pairs collected before they are added up: bounds memory on long sequences
_SCORES_AT_ONCE = 1 << 20  # sums in float64 that stay in cache
_LARGE = 1 << 17  # items of a catalogue whose rows of scores are mostly empty
_EDGES_AT_ONCE = 1 << 21


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
        counts = spec.train.counts(spec.num_items)
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
        if len(self.fallback) <= _LARGE or not batch.items.shape[1] * self.width:
            return self._rank_all(batch.items, recency, k, batch.seen)
        parts = []
        for items, weights, seen in self._slices(batch, recency):
            found = self._rank_reached(items, weights, k, seen)
            short = (found.items == IGNORE).any(dim=1).nonzero().squeeze(1)
            if len(short):
                rest = self._rank_all(items[short], weights[short], k, None if seen is None else seen[short])
                found.items[short], found.scores[short] = rest.items, rest.scores
            parts.append(found)
        return Recommendations(torch.cat([part.items for part in parts]), torch.cat([part.scores for part in parts]))

    def _slices(self, batch: HistoryBatch, recency: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Items, their weights and the seen ones of a few rows at a time."""
        step = max(1, _EDGES_AT_ONCE // (batch.items.shape[1] * self.width))
        for begin in range(0, len(batch.lengths), step):
            rows = slice(begin, begin + step)
            yield batch.items[rows], recency[rows], None if batch.seen is None else batch.seen[rows]

    def _rank_all(self, items: Tensor, recency: Tensor, k: int, seen: Tensor | None) -> Recommendations:
        """Of rows with a score for every item of the catalogue."""
        # A chunk holds a row of scores and a row of gathered neighbours per user, whichever is longer counts.
        widest = max(len(self.fallback), items.shape[1] * self.width)
        return rank_rows(
            lambda rows: self._scores(items[rows], recency[rows]),
            num_rows=len(items),
            num_items=widest,
            k=k,
            seen=seen,
            max_scores=_SCORES_AT_ONCE,
        )

    def _rank_reached(self, items: Tensor, recency: Tensor, k: int, seen: Tensor | None) -> Recommendations:
        """The k best of the items that a neighbour reaches, which may be fewer; the numbers are those of
        ``_rank_all``."""
        neighbors, weights = (part.flatten(1) for part in self._edges(items, recency))  # (B, L * M)
        neighbors = torch.where(weights > 0, neighbors, len(self.fallback))
        neighbors, order = neighbors.sort(dim=1, stable=True)
        place = functional.pad((neighbors[:, 1:] != neighbors[:, :-1]).long(), (1, 0)).cumsum(dim=1)
        scores = torch.zeros(weights.shape, dtype=torch.float64, device=weights.device)
        scores.scatter_add_(1, place, weights.double().gather(1, order))
        reached = torch.full_like(neighbors, len(self.fallback)).scatter_(1, place, neighbors)  # ascending, each once
        scores = scores.float().masked_fill_(reached == len(self.fallback), -torch.inf)
        scores.masked_fill_(scores <= 0, -torch.inf)
        if seen is not None and seen.shape[1]:
            at = torch.searchsorted(reached, seen.clamp(min=0)).clamp_(max=reached.shape[1] - 1)
            there = (reached.gather(1, at) == seen) & (seen != IGNORE)
            lowest = torch.where(there, -torch.inf, torch.inf)
            scores.scatter_reduce_(1, at, lowest, reduce="amin")
        found = rank_items(scores, k)
        return Recommendations(
            torch.where(found.items == IGNORE, IGNORE, reached.gather(1, found.items.clamp(min=0))), found.scores
        )

    def _scores(self, items: Tensor, recency: Tensor) -> Tensor:
        """(B, N) summed similarities."""
        if self.width == 0:
            return self.fallback.expand(len(items), -1)
        neighbors, weights = self._edges(items, recency)
        # Summed in float64, so that the order of summation (open on a GPU) does not show in float32.
        scores = torch.zeros(len(items), len(self.fallback), dtype=torch.float64, device=items.device)
        scores.scatter_add_(1, neighbors.flatten(1), weights.double().flatten(1))
        scores = scores.float()
        return torch.where(scores > 0, scores, self.fallback)

    def _edges(self, items: Tensor, recency: Tensor) -> tuple[Tensor, Tensor]:
        """The neighbours (B, L, M) of items (B, L) and what each adds to their scores, 0 where there is none."""
        start, end = self.offsets[items], self.offsets[items + 1]
        edges = start[..., None] + torch.arange(self.width, device=items.device)
        exists = edges < end[..., None]
        edges = torch.where(exists, edges, 0)
        return self.neighbors[edges].long(), torch.where(exists, self.weights[edges] * recency[..., None], 0.0)


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
