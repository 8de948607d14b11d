"""ComiRec-SA: several interests of a user, each an attention over the items of the history.

Shapes: B rows, L items of history, K interests, H attention width, D width. Source: Cen et al., KDD 2020
(arXiv 2005.09347), the self-attentive variant, which is deterministic; its trade of accuracy for diversity when the
lists of the interests are merged is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Rate, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, initialise
from genrec.nn.dropout import Dropout


class ComiRec(NextItemModel):
    """Interest k is the mean of item vectors weighed by softmax(w_k tanh(W h) + bias), equation 7 of the paper.

    Where an item stands is known from a learned bias per interest and distance to the end, in place of the paper's
    position vectors: so one pass gives the interests after every item. A target trains the interest that scores it
    best (equation 9); a score is the largest over the interests. ``tie`` False scores with a table of its own, since a
    mean of the vectors of met items lies near these items and not near those that follow them.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_interests: Count = 4,
        attention_dim: Count = 256,
        dropout: Rate = 0.2,
        max_history: Count = 50,
        loss: AnyLoss | None = "listwise",
        tie: bool = False,
        text: bool = False,
    ) -> None:
        check_arguments(ComiRec.__init__, locals(), "model")
        super().__init__(spec, embedding_dim=embedding_dim, max_history=max_history, loss=loss, text=text, tie=tie)
        self.dropout = Dropout(dropout)
        self.hidden = nn.Linear(embedding_dim, attention_dim, bias=False)
        self.interests = nn.Linear(attention_dim, num_interests, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(max_history, num_interests))
        initialise(self)
        for layer in (self.hidden, self.interests):  # interests that begin alike would stay so
            nn.init.xavier_normal_(layer.weight)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, L, K, D): the interests after each item."""
        x = self.dropout(x)
        logits = self.interests(torch.tanh(self.hidden(x)))  # (B, L, K)
        places = torch.arange(x.shape[1], device=x.device)
        distances = places[:, None] - places  # (L, L): from the items that were met to the end
        bias = functional.embedding(distances.clamp(min=0), self.distance_bias)  # (L, L, K)
        later = (distances < 0)[:, :, None]
        weights = (logits[:, None] + bias).masked_fill(later, -torch.inf).softmax(dim=2)  # (B, L, L, K)
        return torch.einsum("btjk,bjd->btkd", weights, x.to(weights.dtype))
