"""Models with a vector per user and per item, trained on edges of the training graph.

U users, N items, B edges of a batch, n negatives of each, D width, k list length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import (
    IGNORE,
    DataSpec,
    GenrecError,
    HistoryBatch,
    Losses,
    PairBatch,
    Recommendations,
    SequenceBatch,
    Task,
)
from genrec.decoding.topk import rank_rows
from genrec.graph import EdgeType
from genrec.losses import BPR, AnyLoss, PairLoss, item_loss, scored_items, scored_users
from genrec.nn.pair_scores import pair_scores
from genrec.nn.serving import evaluating


@dataclass(frozen=True)
class Messages:
    """What the neighbours over one edge type add to a user: ``nodes`` (n,) of the type ``kind``, ``vectors`` (n, D)."""

    edge_type: EdgeType
    nodes: Tensor
    vectors: Tensor

    @property
    def kind(self) -> str:
        return self.edge_type[0]


class UserItemModel(nn.Module):
    """Scores are products of final vectors, which a subclass makes in ``vectors``.

    A user without training edges is the mean of the final vectors of the items in the history. ``l2`` adds
    l2 / 2 (|e_u|^2 + |e_i|^2 + mean |e_j|^2) of the embeddings that a pair starts from, as in the papers.
    """

    view = "graph"
    task = Task.RETRIEVAL
    training_mode = "pairs"
    masks_seen = True  # its vectors place a user next to the items that trained them
    suggested_batch_size = 1024  # edges; a step passes messages through the whole graph, however few it trains on

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: int,
        loss: PairLoss | AnyLoss | None,
        l2: float,
        init_std: float,
        max_history: int,
    ) -> None:
        super().__init__()
        if spec.train is None:
            raise GenrecError(f"{type(self).__name__} learns from training edges, and none were given. Choose data.")
        self.max_history = max_history
        self.num_users, self.num_items = spec.num_users, spec.num_items
        self.pair_loss: PairLoss | _OverCatalogue = _as_pair_loss(BPR() if loss is None else loss)
        self.l2 = l2
        self.nodes = nn.Embedding(spec.num_users + spec.num_items, embedding_dim)  # users first
        nn.init.normal_(self.nodes.weight, std=init_std)
        self.counts: Tensor  # (N,) training frequencies
        counts = spec.train.counts(spec.num_items)
        self.register_buffer("counts", torch.from_numpy(counts).float(), persistent=False)
        self.trained: Tensor  # (U,) users with a training edge
        self.register_buffer("trained", torch.from_numpy(spec.train.lengths > 0), persistent=False)
        self._kept: tuple[tuple[Any, ...], tuple[Tensor, Tensor]] | None = None

    def vectors(self) -> tuple[Tensor, Tensor]:
        """The final vectors of all users (U, D) and of all items (N, D)."""
        return self._split(self.nodes.weight)

    def loss(self, batch: PairBatch | SequenceBatch) -> Losses:
        """The pair loss averaged over the edges of the batch, and what a subclass adds."""
        if isinstance(batch, SequenceBatch):
            batch = self._as_pairs(batch)
        total = self._loss_of_pairs(batch)
        parts = {}
        if self.l2 > 0:
            shrinkage = self.l2 * self._shrinkage(batch)
            total, parts = total + shrinkage, {"l2": shrinkage.detach()}
        return Losses(total, len(batch.users), parts)

    def _loss_of_pairs(self, batch: PairBatch) -> Tensor:
        return self._loss_of(batch, *(self.vectors() if self.training else self._final_vectors()))

    def _loss_of(self, batch: PairBatch, users: Tensor, items: Tensor) -> Tensor:
        """The pair loss by the final vectors of all users (U, D) and items (N, D)."""
        if isinstance(self.pair_loss, _OverCatalogue):
            chosen = functional.embedding(batch.users, users)
            given: tuple[Any, ...] = (batch.users,) if getattr(self._item_loss, "over_targets", False) else ()
            if given and batch.whole is not None:
                given = (*given, batch.whole)
            return self._item_loss(chosen, items, batch.positives, self.counts, *given)
        candidates = torch.cat([batch.positives[:, None], batch.negatives], dim=1)
        return self._pair_loss(users, items, batch.users, candidates)

    def _pair_loss(self, users: Tensor, items: Tensor, rows: Tensor, candidates: Tensor) -> Tensor:
        """The loss of the users at ``rows`` (B,) beside the met item and then the unmet ones at ``candidates``
        (B, 1 + n)."""
        assert not isinstance(self.pair_loss, _OverCatalogue)
        with torch.autocast(users.device.type, enabled=False):
            scores = pair_scores(users, items, rows, candidates)
            return self.pair_loss.of_scores(scores[:, 0], scores[:, 1:])

    def _shrinkage(self, batch: PairBatch) -> Tensor:
        """Half the squared norms of the embeddings of a pair, mean over pairs, by how often each node is in one."""
        nodes = self.nodes.weight
        times = torch.bincount(batch.users, minlength=len(nodes)).to(nodes.dtype)
        times += torch.bincount(batch.positives + self.num_users, minlength=len(nodes))
        if batch.negatives.shape[1]:
            unmet = torch.bincount(batch.negatives.flatten() + self.num_users, minlength=len(nodes))
            times += unmet / batch.negatives.shape[1]
        return 0.5 * (nodes.square().sum(dim=1) * times).sum() / len(batch.users)

    def _as_pairs(self, batch: SequenceBatch) -> PairBatch:
        """Scored targets beside items drawn uniformly from all that are no target: how validation asks for the loss."""
        rows, places = torch.nonzero(batch.targets != IGNORE, as_tuple=True)
        positives = batch.targets[rows, places]
        shape = (len(rows), self.pair_loss.num_negatives)
        drawn = torch.randint(max(self.num_items - 1, 1), shape, device=positives.device)
        others = (drawn + (drawn >= positives[:, None]).long()).clamp(
            max=self.num_items - 1
        )  # of one item there is none
        return PairBatch(batch.users[rows], positives, others)

    @torch.no_grad()
    def encode_users(self, batch: HistoryBatch) -> Tensor:
        """(B, D) the vectors whose products with those of ``encode_items`` are the scores."""
        with evaluating(self), torch.autocast(batch.items.device.type, enabled=False):
            users, items = self._final_vectors()
            known = batch.users.clamp(min=0)
            chosen = users[known]
            unknown = (batch.users == IGNORE) | ~self.trained[known]
            if bool(unknown.any()):
                chosen = torch.where(unknown[:, None], self._of_history(batch, items), chosen)
            return scored_users(self._item_loss, chosen)

    @torch.no_grad()
    def encode_items(self) -> Tensor:
        """(N, D) the vectors that those of users are multiplied with."""
        with evaluating(self), torch.autocast(self.nodes.weight.device.type, enabled=False):
            return scored_items(self._item_loss, self._final_vectors()[1].detach())

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k best items by the product of final vectors."""
        with torch.autocast(batch.items.device.type, enabled=False):
            users, items = self.encode_users(batch), self.encode_items()
            return rank_rows(
                lambda rows: functional.linear(users[rows], items),
                num_rows=len(users),
                num_items=len(items),
                k=k,
                seen=batch.seen,
            )

    @property
    def _item_loss(self) -> Any:
        return self.pair_loss.loss if isinstance(self.pair_loss, _OverCatalogue) else self.pair_loss

    def _of_history(self, batch: HistoryBatch, items: Tensor) -> Tensor:
        """(B, D) the mean vector of the items of each history."""
        there = torch.arange(batch.items.shape[1], device=items.device) < batch.lengths[:, None]
        weights = there / batch.lengths.clamp(min=1)[:, None]
        return torch.einsum("bl,bld->bd", weights.to(items.dtype), items[batch.items])

    def _final_vectors(self) -> tuple[Tensor, Tensor]:
        """``vectors`` in evaluation mode, made once for as long as no parameter changes.

        Told by a sum over their bits: fused optimizers do not count up the version of a tensor.
        """
        bits = [(p.device, int(p.detach().reshape(-1).view(torch.int32).sum())) for p in self.parameters()]
        state = tuple(bits)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.vectors())
        return self._kept[1]

    def _split(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (U + N, D) as those of users and those of items."""
        return nodes[: self.num_users], nodes[self.num_users :]


class _OverCatalogue:
    """A loss over the whole catalogue, which draws its own negatives if it needs any."""

    num_negatives = 0
    sampling: Literal["uniform", "popularity"] = "uniform"

    def __init__(self, loss: Any) -> None:
        self.loss = loss


def _as_pair_loss(loss: Any) -> PairLoss | _OverCatalogue:
    found = loss if hasattr(loss, "of_scores") else item_loss(loss)
    return found if hasattr(found, "of_scores") else _OverCatalogue(found)
