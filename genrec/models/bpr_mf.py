"""BPR-MF: matrix factorisation on pairwise ranking (Rendle et al., UAI 2009)."""

from __future__ import annotations

from genrec.annotations import Count, NotNegative, Positive, check_arguments
from genrec.contracts import DataSpec
from genrec.losses import AnyLoss, PairLoss
from genrec.models.user_item import UserItemModel


class BPRMF(UserItemModel):
    """A vector for every user and every item, and their product; no messages pass between them."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        loss: PairLoss | AnyLoss | None = None,
        l2: NotNegative = 1e-3,
        init_std: Positive = 0.1,
        max_history: Count = 200,
    ) -> None:
        check_arguments(BPRMF.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, loss=loss, l2=l2, init_std=init_std, max_history=max_history
        )
