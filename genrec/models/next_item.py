"""What models share that read a history item by item and score the catalogue by products with item vectors.

Shapes: B rows, L items of history, D width, W width of what is read, N items, F width of an item vector, R scored
targets, K interests of a user, k list length.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

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
from genrec.losses import (
    AnyLoss,
    FullCrossEntropy,
    SampledLoss,
    Whole,
    cumulated,
    item_loss,
    scored_items,
    scored_users,
)
from genrec.models.text import text_features
from genrec.nn.serving import evaluating, last_states, recent
from genrec.sharding import Shard, cross_entropy, fetch, whole_table

_INITIAL_STD = 0.02


class NextItemModel(nn.Module):
    """An item table, a causal stack over it that a model provides as ``encode``, a loss and full-catalogue ranking.

    One pass over a row scores the targets of all its positions. The table is used for reading and for scoring; with
    ``text`` it is a learned vector per item plus a learned projection of the item's vector; without ``tie`` a second
    table scores. A score is a product, of several interests the largest, in training as in recommending. ``loss`` is
    an object or a name that ``genrec.losses.item_loss`` knows. With ``sparse_gradients`` a step reads and changes only
    the rows of the tables that its histories, targets and drawn negatives name, however many items there are; the loss
    has to be one of those that draw, or over the targets of the batch.
    """

    view = "sequences"
    task = Task.RETRIEVAL
    training_mode = "positions"
    item_vectors_option = "text"  # the key of the config that asks for item vectors

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: int,
        max_history: int,
        loss: AnyLoss | None,
        text: bool,
        tie: bool = True,
        sparse_gradients: bool = False,
    ) -> None:
        super().__init__()
        self.max_history = max_history
        self.item_loss: Any = FullCrossEntropy() if loss is None else item_loss(loss)
        self.sparse_gradients = sparse_gradients
        if sparse_gradients and not self._names_its_items:
            raise GenrecError(
                f"model.sparse_gradients=true: {type(self.item_loss).__name__} changes the vectors of all items. Use a "
                "loss of some of them: model.loss=listwise, in_batch, pointwise or pairwise."
            )
        self.items = nn.Embedding(spec.num_items, embedding_dim, sparse=sparse_gradients)
        self.output = None if tie else nn.Embedding(spec.num_items, embedding_dim, sparse=sparse_gradients)
        self._borders: Tensor | None = None  # by which negatives are drawn, once they were
        self._whole: Whole | None = None
        self._shard: Shard | None = None  # where the tables hold the rows of one of several processes only
        counts = np.ones(spec.num_items) if spec.train is None else spec.train.counts(spec.num_items)
        self.counts: Tensor  # (N,) training frequencies
        self.register_buffer("counts", torch.from_numpy(counts).float(), persistent=False)
        self.text: nn.Linear | None = None
        if text:
            self.vectors: Tensor  # (N, F)
            self.register_buffer("vectors", text_features(spec), persistent=False)
            self.text = nn.Linear(self.vectors.shape[1], embedding_dim, bias=False)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Item vectors (B, L, W) of rows with ``lengths`` (B,) items to hidden states (B, L, D), causally."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """(N, W) the vectors by which items are read."""
        return self.items.weight if self.text is None else self.items.weight + self.text(self.vectors)

    def read(self, table: Tensor, items: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
        """Hidden states (B, L, D), or (B, L, K, D) of several interests, after each of the ``items`` (B, L)."""
        return self.encode(functional.embedding(items, table), lengths)

    def outputs(self, table: Tensor, items: Tensor | None = None) -> Tensor:
        """(n, D) the vectors by which ``items`` (n,) are scored (None: all), given those by which they are read."""
        scoring = table if self.output is None else self.output.weight
        return scoring if items is None else functional.embedding(items, scoring)

    def loss(self, batch: SequenceBatch) -> Losses:
        """The item loss averaged over the scored targets."""
        assert batch.items.shape[1] <= self.max_history, "rows are cut to max_history when they are made"
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        if self._shard is not None:
            return Losses(self._loss_of_shards(batch, scored, self._shard), count)
        if self.sparse_gradients:
            return Losses(self._loss_of_rows(batch, scored), count)
        table = self.table()
        hidden = self.read(table, batch.items, batch.lengths, batch.users)
        if count == 0:
            return Losses(hidden.sum() * 0.0, 0)
        if count == scored.numel():
            hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
        else:
            hidden, targets = hidden[scored], batch.targets[scored]
        if not getattr(self.item_loss, "over_targets", False):
            outputs = self.outputs(table)
            hidden = self._nearest(hidden, outputs, targets)
            return Losses(self.item_loss(hidden, outputs, targets, self.counts), count)
        users = batch.users[:, None].expand_as(scored)[scored]
        if batch.whole is None:
            whole = ()
            candidates, places = targets.unique(return_inverse=True)
        else:
            candidates, others = batch.whole[0].unique(return_inverse=True)
            places, whole = torch.searchsorted(candidates, targets), ((others, batch.whole[1]),)
        outputs = self.outputs(table, candidates)
        hidden = self._nearest(hidden, outputs, places)
        return Losses(self.item_loss(hidden, outputs, places, self.counts[candidates], users, *whole), count)

    @property
    def can_shard(self) -> bool:
        """Whether the loss can be had with ``shard``."""
        of_one_vector = type(self).read is NextItemModel.read and type(self).table is NextItemModel.table
        simple = of_one_vector and not hasattr(self, "num_interests")
        return isinstance(self.item_loss, FullCrossEntropy) and self.text is None and simple

    def shard(self, rank: int, size: int) -> None:
        """Leaves in this process, of ``size`` that are in touch, its part of the rows of the item tables.

        The loss is the same, and gradients are means over the processes, of rows that only this process holds as well.
        All processes call ``loss`` together. Recommending, and saving the weights, needs the tables whole: ``unshard``.
        """
        if not self.can_shard:
            raise GenrecError(
                "Item tables are shared out for the full softmax over items without text: use model.loss=full and "
                "model.text=false."
            )
        assert self._shard is None
        self._shard = Shard(rank, size, self.items.num_embeddings)
        for table in self.item_tables():
            table.weight = nn.Parameter(self._shard.cut(table.weight.detach()))

    def unshard(self) -> None:
        """Makes the tables whole again; all processes call it."""
        assert self._shard is not None
        for table in self.item_tables():
            table.weight = nn.Parameter(whole_table(table.weight, self._shard))
        self._shard = None

    def item_tables(self) -> list[nn.Embedding]:
        """The tables by which items are read and scored."""
        return [self.items] if self.output is None else [self.items, self.output]

    def _loss_of_shards(self, batch: SequenceBatch, scored: Tensor, shard: Shard) -> Tensor:
        hidden = self.encode(fetch(self.items.weight, batch.items, shard), batch.lengths)[scored]
        scoring = self.items if self.output is None else self.output
        return cross_entropy(hidden, scoring.weight, batch.targets[scored], shard)

    @property
    def _names_its_items(self) -> bool:
        """Whether the loss says which items it is about before it sees a vector."""
        return isinstance(self.item_loss, SampledLoss) or getattr(self.item_loss, "over_targets", False)

    def _loss_of_rows(self, batch: SequenceBatch, scored: Tensor) -> Tensor:
        """The loss over a table of those rows alone that the batch and the loss name."""
        targets = batch.targets[scored]
        if not len(targets):
            return functional.embedding(batch.items[:1, 0], self.items.weight, sparse=True).sum() * 0.0
        others = self._others(batch, targets)
        names = (batch.items.flatten(), targets, others.flatten())
        rows, places = torch.cat(names).unique(return_inverse=True)
        items, wanted, drawn = places.split([len(part) for part in names])
        table = functional.embedding(rows, self.items.weight, sparse=True)
        if self.text is not None:
            table = table + self.text(self.vectors[rows])
        hidden = self.read(table, items.view_as(batch.items), batch.lengths, batch.users)[scored]
        outputs = table if self.output is None else functional.embedding(rows, self.output.weight, sparse=True)
        hidden, counts = self._nearest(hidden, outputs, wanted), self.counts[rows]
        if isinstance(self.item_loss, SampledLoss):
            assert self._whole is not None
            return self.item_loss.of_drawn(hidden, outputs, wanted, drawn.view_as(others), counts, self._whole)
        users = batch.users[:, None].expand_as(scored)[scored]
        whole = () if batch.whole is None else ((drawn, batch.whole[1]),)
        return self.item_loss(hidden, outputs, wanted, counts, users, *whole)

    def _others(self, batch: SequenceBatch, targets: Tensor) -> Tensor:
        """The items of the loss besides the targets of these rows: drawn ones, or the targets of the whole batch."""
        if not isinstance(self.item_loss, SampledLoss):
            return targets[:0] if batch.whole is None else batch.whole[0]
        if self._whole is None or self._whole.total.device != targets.device:
            self._whole, self._borders = Whole.of(self.counts), cumulated(self.item_loss.chances(self.counts))
        return self.item_loss.draw(targets, self.counts, self._borders)

    def _nearest(self, hidden: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of several interests (R, K, D) the one that scores the target best: (R, D)."""
        if hidden.ndim == 2:
            return hidden
        with torch.no_grad():
            wanted = scored_items(self.item_loss, functional.embedding(targets, outputs))
            scores = torch.einsum("rkd,rd->rk", scored_users(self.item_loss, hidden), wanted.to(hidden.dtype))
            best = scores.argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), best]

    @torch.no_grad()
    def encode_users(self, batch: HistoryBatch) -> Tensor:
        """(B, D), or (B, K, D) of several interests: the vectors whose products with those of items are the scores."""
        with evaluating(self):
            return self._user_vectors(self.table(), batch)

    @torch.no_grad()
    def encode_items(self) -> Tensor:
        """(N, D) the vectors that those of users are multiplied with."""
        with evaluating(self):
            return self._item_vectors(self.table())

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k best items of the catalogue by the products of ``encode_users`` and ``encode_items``."""
        with evaluating(self):
            table = self.table()
            users, items = self._user_vectors(table, batch), self._item_vectors(table)
            with torch.autocast(items.device.type, enabled=False):
                return rank_rows(
                    lambda part: products(users[part], items),
                    num_rows=len(users),
                    num_items=len(items),
                    k=k,
                    seen=batch.seen,
                )

    # In full precision whatever the network runs in: bfloat16 scores of the best items are mostly ties.

    def _user_vectors(self, table: Tensor, batch: HistoryBatch) -> Tensor:
        items, lengths = recent(batch.items, batch.lengths, self.max_history)
        hidden = last_states(self.read(table, items, lengths, batch.users), lengths)
        return scored_users(self.item_loss, hidden.to(self.items.weight.dtype))

    def _item_vectors(self, table: Tensor) -> Tensor:
        return scored_items(self.item_loss, self.outputs(table).detach().to(self.items.weight.dtype))


def products(users: Tensor, items: Tensor) -> Tensor:
    """Scores (B, N) of items (N, D) for users (B, D); for several interests (B, K, D) the largest."""
    if users.ndim == 2:
        return functional.linear(users, items)
    return reduce(torch.maximum, (functional.linear(interest, items) for interest in users.unbind(1)))


def running_mean(x: Tensor) -> Tensor:
    """(B, L, D) to the mean of each place and those before it."""
    return x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]


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
