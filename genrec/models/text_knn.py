"""Items whose vectors point the same way as those of the last items: content alone, nothing to train."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count, Share, check_arguments
from genrec.contracts import DataSpec, GenrecError, HistoryBatch, Recommendations, Task
from genrec.decoding.topk import rank_rows
from genrec.nn.recency import recency_weights

_SCORE_DECIMALS = 6  # equal vectors must tie, in whatever order a matrix product adds them up


class TextKNN(nn.Module):
    """Cosine between each item's vector and the recency-weighted sum of the unit vectors of the last items."""

    view = "sequences"
    task = Task.RETRIEVAL
    needs_item_vectors = True
    training_mode = "positions"

    def __init__(self, spec: DataSpec, *, max_history: Count = 1, decay: Share = 0.5) -> None:
        check_arguments(TextKNN.__init__, locals(), "model")
        super().__init__()
        if spec.item_vectors is None:
            raise GenrecError(
                "TextKNN compares item vectors and none were given. Choose an encoder (encoder=tfidf, or encoder=file "
                "with encoder.path=...), and a data source whose items have text."
            )
        self.max_history = max_history
        self.decay = decay
        vectors = torch.from_numpy(np.asarray(spec.item_vectors, dtype=np.float32))
        self.vectors: Tensor  # (N, D) unit length; rebuilt from the data, so not repeated in every checkpoint
        self.register_buffer("vectors", nn.functional.normalize(vectors, dim=1), persistent=False)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k unseen items of largest cosine; scores are cosines."""
        weights = recency_weights(batch.lengths, batch.items.shape[1], decay=self.decay, num_recent=self.max_history)
        history = self.vectors[batch.items.clamp(min=0)]  # (B, L, D)
        query = nn.functional.normalize(torch.einsum("bl,bld->bd", weights, history), dim=1)

        def score_rows(rows: slice) -> Tensor:
            return (query[rows] @ self.vectors.T).round(decimals=_SCORE_DECIMALS)

        return rank_rows(score_rows, num_rows=len(query), num_items=len(self.vectors), k=k, seen=batch.seen)
