"""What a history has to do with a candidate: the local activation unit of DIN.

B rows, L places of a history, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genrec.nn.lookup import look_up
from genrec.nn.mlp import MLP


class LocalActivation(nn.Module):
    """The weight of each place of a history for a candidate (Zhou et al., KDD 2018, equation 2).

    An MLP of (history, candidate, their difference, their product) with ``Dice``, without a softmax, so that the sum of
    the weights tells how much of the history speaks for the candidate. Weights start near 1, which sums the history:
    from near 0 neither they nor the vectors would get a gradient to speak of. Places without an id weigh 0.
    """

    def __init__(self, width: int, hidden_dims: Sequence[int] = (36,)) -> None:
        super().__init__()
        self.layers = MLP(4 * width, hidden_dims, 1, activation="dice")
        nn.init.ones_(self.layers.output.bias)

    def forward(self, target: Tensor, history: Tensor, there: Tensor) -> Tensor:
        """``target`` (B, D), ``history`` (B, L, D), ``there`` (B, L) bool: weights (B, L).

        Only the places that hold an id go through the network, so that padding is no part of Dice's statistics.
        """
        places = there.flatten().nonzero().squeeze(1)
        known = look_up(places, history.flatten(0, 1))
        chosen = look_up(places // there.shape[1], target)
        scores = self.layers(torch.cat([known, chosen, known - chosen, known * chosen], dim=1)).squeeze(1)
        return scores.new_zeros(there.numel()).index_copy(0, places, scores).view(there.shape)
