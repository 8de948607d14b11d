"""YouTubeDNN: recommend by a network over the mean of the history, one class per item.

Shapes: B rows, L items of history, D width. Source: Covington et al., RecSys 2016 (doi 10.1145/2959100.2959190),
candidate generation. Searches, demographics and the age of an example are left out: batches do not carry them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from genrec.annotations import Count, Rate, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, initialise, running_mean
from genrec.nn.dropout import Dropout
from genrec.nn.mlp import MLP


class YouTubeDNN(NextItemModel):
    """ReLU layers over the mean vector of the items so far; the classes have a table of their own unless ``tie``.

    The last layer is linear, so that a user's vector can point anywhere. ``text`` is read; with ``tie`` also scored.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        hidden_dims: Sequence[Count] = (128,),
        dropout: Rate = 0.2,
        max_history: Count = 50,
        loss: AnyLoss | None = "listwise",
        tie: bool = False,
        text: bool = False,
    ) -> None:
        check_arguments(YouTubeDNN.__init__, locals(), "model")
        super().__init__(spec, embedding_dim=embedding_dim, max_history=max_history, loss=loss, text=text, tie=tie)
        self.dropout = Dropout(dropout)
        initialise(self)
        self.tower = MLP(embedding_dim, [int(width) for width in hidden_dims], embedding_dim, dropout=dropout)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.tower(self.dropout(running_mean(x)))
