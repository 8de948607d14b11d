"""HSTU: recommend the next item by pointwise gated attention over the items of the history.

Shapes: B rows, L items of history, D width. Source: Zhai et al. 2024 (arXiv 2402.17152). Its bias for the time between
two items is left out, because batches carry no timestamps; the bias for their distance in the row is there.
"""

from __future__ import annotations

from torch import Tensor, nn

from genrec.annotations import Count, Rate, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, check_heads, initialise
from genrec.nn.causal import HSTUBlock
from genrec.nn.dropout import Dropout


class HSTU(NextItemModel):
    """A stack of HSTU blocks over item vectors; where an item stands is known from its distance to others only."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 2,
        num_heads: Count = 1,
        dropout: Rate = 0.4,
        max_history: Count = 50,
        loss: AnyLoss | None = None,
        text: bool = False,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(HSTU.__init__, locals(), "model")
        check_heads(embedding_dim, num_heads)
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            max_history=max_history,
            loss=loss,
            text=text,
            sparse_gradients=sparse_gradients,
        )
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            HSTUBlock(embedding_dim, num_heads, max_history, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)
        initialise(self)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
