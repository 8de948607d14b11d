"""DSSM: two towers, one for users and one for items, whose vectors are compared by their cosine.

Shapes: B rows, L items of history, D width, W width of what a tower reads, N items, E edges of a relation. Source:
Huang et al., CIKM 2013 (doi 10.1145/2505515.2505665), with towers over ids and features instead of letter trigrams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Positive, Rate, check_arguments
from genrec.contracts import IGNORE, DataSpec
from genrec.graph import ITEM, USER, Relation
from genrec.losses import AnyLoss
from genrec.models.next_item import NextItemModel, initialise, running_mean
from genrec.nn.dropout import Dropout
from genrec.nn.mlp import MLP


class DSSM(NextItemModel):
    """Multi-layer perceptrons to unit vectors; a score is the cosine over ``temperature`` (1 / gamma of the paper).

    The tower of items reads an item's embedding and, side by side, the mean vector of its tags, genres ...
    (``features``: all relations of items in the graph) and a projection of its text vector (``text``). That of users
    reads the mean of the same over the items so far, never the target's, the features of users, and with ``user_ids``
    a vector per user, which says nothing of users who were not trained on.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        hidden_dims: Sequence[Count] = (128,),
        temperature: Positive = 0.1,
        dropout: Rate = 0.2,
        max_history: Count = 50,
        loss: AnyLoss | None = "in_batch",
        features: bool = True,
        text: bool = False,
        user_ids: bool = False,
    ) -> None:
        check_arguments(DSSM.__init__, locals(), "model")
        super().__init__(spec, embedding_dim=embedding_dim, max_history=max_history, loss=loss, text=text)
        self.temperature = temperature
        self.dropout = Dropout(dropout)
        self.item_features = _features(spec, ITEM, spec.num_items, embedding_dim) if features else nn.ModuleDict()
        self.user_features = _features(spec, USER, spec.num_users, embedding_dim) if features else nn.ModuleDict()
        self.users = nn.Embedding(spec.num_users, embedding_dim) if user_ids else None
        initialise(self)
        of_item = embedding_dim * (1 + len(self.item_features) + int(text))
        of_user = of_item + embedding_dim * (len(self.user_features) + int(user_ids))
        widths = [int(width) for width in hidden_dims]
        self.item_tower = MLP(of_item, widths, embedding_dim, dropout=dropout)
        self.user_tower = MLP(of_user, widths, embedding_dim, dropout=dropout)

    def table(self) -> Tensor:
        """(N, W) what is known of every item, before the tower."""
        parts = [self.items.weight, *(pool() for pool in self.item_features.values())]
        if self.text is not None:
            parts.append(self.text(self.vectors))
        return torch.cat(parts, dim=1)

    def read(self, table: Tensor, items: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
        history = running_mean(functional.embedding(items, table))
        known = (users != IGNORE)[:, None]
        tables = [pool() for pool in self.user_features.values()]
        tables += [] if self.users is None else [self.users.weight]
        own = [functional.embedding(users.clamp(min=0), each) * known for each in tables]
        parts = [history, *(each[:, None].expand(-1, items.shape[1], -1) for each in own)]
        vectors = self.user_tower(self.dropout(torch.cat(parts, dim=2)))
        return functional.normalize(vectors.float(), dim=2) / self.temperature

    def outputs(self, table: Tensor, items: Tensor | None = None) -> Tensor:
        read = table if items is None else functional.embedding(items, table)
        return functional.normalize(self.item_tower(self.dropout(read)).float(), dim=1)


class PooledNodes(nn.Module):
    """The mean vector of the nodes that each user or item is tied to, by the weights of the edges; zeros if none."""

    def __init__(self, relation: Relation, count: int, num_nodes: int, embedding_dim: int) -> None:
        """``count`` users or items, ``num_nodes`` nodes of the relation's target."""
        super().__init__()
        order = np.argsort(relation.sources, kind="stable")
        sources, weights = relation.sources[order], relation.weights[order].astype(np.float64)
        shares = weights / np.bincount(sources, weights=weights, minlength=count)[sources]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=count))])
        self.targets: Tensor  # (E,)
        self.offsets: Tensor  # (count + 1,)
        self.shares: Tensor  # (E,)
        self.register_buffer("targets", torch.from_numpy(relation.targets[order].astype(np.int64)), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(offsets.astype(np.int64)), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares).float(), persistent=False)
        self.nodes = nn.Embedding(num_nodes, embedding_dim)

    def forward(self) -> Tensor:
        """(count, D)."""
        return functional.embedding_bag(
            self.targets,
            self.nodes.weight,
            self.offsets,
            mode="sum",
            per_sample_weights=self.shares.to(self.nodes.weight.dtype),
            include_last_offset=True,
        )


def _features(spec: DataSpec, kind: str, count: int, embedding_dim: int) -> nn.ModuleDict:
    """What users or items are tied to besides each other: one ``PooledNodes`` per relation of the graph."""
    graph = spec.graph
    relations = {} if graph is None else graph.relations
    return nn.ModuleDict(
        {
            name: PooledNodes(relation, count, len(relation.names), embedding_dim)
            for name, relation in relations.items()
            if relation.source == kind and relation.target not in (USER, ITEM) and len(relation)
        }
    )
