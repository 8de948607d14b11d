"""What models share that read a history item by item and score the catalogue with the table they read it with.

Shapes: B rows, L items of history, D width, N items, F width of an item vector, R scored targets, k list length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import (
    IGNORE,
    DataSpec,
    GenrecError,
    HistoryBatch,
    Losses,
    Recommendations,
    SequenceBatch,
    Task,
)
from genrec.decoding.topk import rank_rows
from genrec.losses import FullCrossEntropy, ItemLoss
from genrec.models.text import text_features
from genrec.nn.serving import evaluating, recent

_INITIAL_STD = 0.02


class NextItemModel(nn.Module):
    """An item table, a causal stack over it that a model provides as ``encode``, a loss and full-catalogue ranking.

    One pass over a row scores the targets of all its positions. The table is used for reading and for scoring; with
    ``text`` it is a learned vector per item plus a learned projection of the item's vector.
    """

    view = "sequences"
    task = Task.RETRIEVAL
    training_mode = "positions"
    item_vectors_option = "text"  # the key of the config that asks for item vectors

    def __init__(
        self, spec: DataSpec, *, embedding_dim: int, max_history: int, loss: ItemLoss | None, text: bool
    ) -> None:
        super().__init__()
        self.max_history = max_history
        self.item_loss = FullCrossEntropy() if loss is None else loss
        self.items = nn.Embedding(spec.num_items, embedding_dim)
        counts = np.ones(spec.num_items) if spec.train is None else _frequencies(spec.train.values, spec.num_items)
        self.counts: Tensor  # (N,) training frequencies
        self.register_buffer("counts", torch.from_numpy(counts).float(), persistent=False)
        self.text: nn.Linear | None = None
        if text:
            self.vectors: Tensor  # (N, F)
            self.register_buffer("vectors", text_features(spec), persistent=False)
            self.text = nn.Linear(self.vectors.shape[1], embedding_dim, bias=False)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Item vectors (B, L, D) of rows with ``lengths`` (B,) items to hidden states (B, L, D), causally."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """(N, D) the vectors of all items."""
        return self.items.weight if self.text is None else self.items.weight + self.text(self.vectors)

    def loss(self, batch: SequenceBatch) -> Losses:
        """The item loss averaged over the scored targets."""
        assert batch.items.shape[1] <= self.max_history, "rows are cut to max_history when they are made"
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        table = self.table()
        if count == 0:
            return Losses(table.sum() * 0.0, 0)
        hidden = self.encode(functional.embedding(batch.items, table), batch.lengths)
        if count == scored.numel():
            hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
        else:
            hidden, targets = hidden[scored], batch.targets[scored]
        return Losses(self.item_loss(hidden, table, targets, self.counts), count)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k best items of the catalogue by their products with the last hidden state."""
        with evaluating(self):
            items, lengths = recent(batch.items, batch.lengths, self.max_history)
            table = self.table()
            rows = torch.arange(len(items), device=items.device)
            hidden = self.encode(functional.embedding(items, table), lengths)[rows, (lengths - 1).clamp(min=0)]
            # In full precision whatever the network runs in: bfloat16 scores of the best items are mostly ties.
            with torch.autocast(items.device.type, enabled=False):
                hidden, table = hidden.to(self.items.weight.dtype), table.to(self.items.weight.dtype)
                return rank_rows(
                    lambda part: functional.linear(hidden[part], table),
                    num_rows=len(items),
                    num_items=len(table),
                    k=k,
                    seen=batch.seen,
                )


def check_heads(embedding_dim: int, num_heads: int) -> None:
    """Raises GenrecError where a vector cannot be shared out among the heads."""
    if embedding_dim % num_heads:
        raise GenrecError(f"model.embedding_dim={embedding_dim} must be a multiple of model.num_heads={num_heads}.")


def initialise(module: nn.Module) -> None:
    """Small normal weights for products and tables, zero biases; norms as they are."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=_INITIAL_STD)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _frequencies(values: np.ndarray, num_items: int) -> np.ndarray:
    return np.bincount(values, minlength=num_items)
