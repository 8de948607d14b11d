"""GRU4Rec: recommend the next item by a recurrent network over the items of the history.

Shapes: B rows, L items of history, D width. Sources: Hidasi et al., ICLR 2016 (arXiv 1511.06939); that the item table
is also the output layer, Hidasi and Karatzoglou, CIKM 2018 (arXiv 1706.03847). Of their losses, BPR-max is not here.
"""

from __future__ import annotations

from torch import Tensor, nn

from genrec.annotations import Count, Rate, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, initialise
from genrec.nn.dropout import Dropout


class GRU4Rec(NextItemModel):
    """Gated recurrent units over item vectors, a row from its first item on; the state after an item scores the next.

    The papers train on sessions side by side; here a row is a user's history and is read in one pass. ``tie`` False
    gives the output layer a table of its own.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 1,
        dropout: Rate = 0.2,
        max_history: Count = 50,
        loss: AnyLoss | None = "full",
        tie: bool = True,
        text: bool = False,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(GRU4Rec.__init__, locals(), "model")
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            max_history=max_history,
            loss=loss,
            text=text,
            tie=tie,
            sparse_gradients=sparse_gradients,
        )
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(nn.GRU(embedding_dim, embedding_dim, batch_first=True) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_dim)
        initialise(self)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        # Rows are filled from the left and states look back only, so what stands behind a row's end changes nothing.
        for layer in self.layers:
            x, _ = layer(self.dropout(x))
        return self.norm(x)
