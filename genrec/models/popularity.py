"""The most frequent items of the training part, the same for everyone: what any model must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, Recommendations, Task
from genrec.decoding.topk import rank_items


class Popularity(nn.Module):
    """Recommends by training count, equal counts by lower item index. Nothing to train: it is complete once built."""

    view = "sequences"
    task = Task.RETRIEVAL
    training_mode = "positions"

    def __init__(self, spec: DataSpec, *, max_history: Count = 50) -> None:
        check_arguments(Popularity.__init__, locals(), "model")
        super().__init__()
        if spec.train is None:
            raise GenrecError("Popularity counts training items and no training part was given. Choose a data source.")
        self.max_history = max_history
        counts = spec.train.counts(spec.num_items)
        order = np.argsort(-counts, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.items: Tensor  # (N,) most frequent first
        self.counts: Tensor  # (N,) of those
        self.rank: Tensor  # (N,) the place of each item in ``items``
        self.register_buffer("items", torch.from_numpy(order))
        self.register_buffer("counts", torch.from_numpy(counts[order].astype(np.float32)))
        self.register_buffer("rank", torch.from_numpy(rank))

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k most frequent unseen items; scores are training counts."""
        # However many are seen, the answer lies within the first k + S, so the catalogue is never scored.
        num_seen = 0 if batch.seen is None else batch.seen.shape[1]
        width = min(k + num_seen, len(self.items))
        places = None
        if batch.seen is not None:
            places = self.rank[batch.seen.clamp(min=0)]
            places = torch.where((batch.seen == IGNORE) | (places >= width), IGNORE, places)
        ranked = rank_items(self.counts[:width].expand(len(batch.lengths), -1), k, places)
        missing = ranked.items == IGNORE
        return Recommendations(self.items[ranked.items.clamp(min=0)].masked_fill(missing, IGNORE), ranked.scores)
