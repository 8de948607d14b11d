"""SASRec and eSASRec: recommend the next item by self-attention over the items of the history.

Shapes: B rows, L items of history, D width. Sources: Kang and McAuley 2018 (arXiv 1808.09781); with ``block="ligr"``
and a sampled softmax, eSASRec (Tikhonovich et al., RecSys 2025).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Rate, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, check_heads, initialise
from genrec.nn.causal import LiGRBlock, TransformerBlock
from genrec.nn.dropout import Dropout

_BLOCKS = {"vanilla": TransformerBlock, "ligr": LiGRBlock}


class SASRec(NextItemModel):
    """A stack of causal blocks over item vectors plus learned positions; items are scored with the table read from.

    ``positions="start"`` numbers the items of a row from its first, so that what a position means does not depend on
    what follows it and training agrees with recommending; ``"end"`` numbers them from the last, as left padding does.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 2,
        num_heads: Count = 1,
        feedforward_dim: Count = 256,
        dropout: Rate = 0.4,
        max_history: Count = 50,
        block: Literal["vanilla", "ligr"] = "vanilla",
        positions: Literal["start", "end"] = "start",
        loss: AnyLoss | None = None,
        text: bool = False,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(SASRec.__init__, locals(), "model")
        check_heads(embedding_dim, num_heads)
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            max_history=max_history,
            loss=loss,
            text=text,
            sparse_gradients=sparse_gradients,
        )
        self.from_end = positions == "end"
        self.positions = nn.Embedding(max_history, embedding_dim)
        self.dropout = Dropout(dropout)
        make = _BLOCKS[block]
        self.blocks = nn.ModuleList(make(embedding_dim, num_heads, feedforward_dim, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_dim)
        initialise(self)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.dropout(x + self._position_vectors(x.shape[1], lengths))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _position_vectors(self, length: int, lengths: Tensor) -> Tensor:
        """(L, D), or (B, L, D) where rows differ."""
        if not self.from_end:
            return self.positions.weight[:length]
        places = lengths[:, None] - 1 - torch.arange(length, device=lengths.device)
        return functional.embedding(places.clamp(min=0), self.positions.weight)
