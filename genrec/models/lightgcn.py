"""LightGCN, and XSimGCL, which contrasts its layers under noise.

U users, N items, D width.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genrec.annotations import Count, NotNegative, Positive, check_arguments
from genrec.contracts import DataSpec, GenrecError, Losses, PairBatch, SequenceBatch
from genrec.graph import INTERACTS, ITEM, USER, EdgeType, TypedGraph
from genrec.losses import AnyLoss, PairLoss
from genrec.models.user_item import Messages, UserItemModel
from genrec.nn.propagation import normalised_adjacency, normalised_weights


class LightGCN(UserItemModel):
    """Vectors passed along training edges ``num_layers`` times; the final ones are the mean over all layers.

    Edges are weighed by the degrees of both ends; there is no transformation and no activation. Source: He et al.,
    SIGIR 2020 (arXiv 2002.02126).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 2,
        loss: PairLoss | AnyLoss | None = None,
        l2: NotNegative = 1e-4,
        init_std: Positive = 0.1,
        max_history: Count = 200,
    ) -> None:
        check_arguments(LightGCN.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, loss=loss, l2=l2, init_std=init_std, max_history=max_history
        )
        assert spec.train is not None
        self.num_layers = num_layers
        train = spec.train
        self.graph = TypedGraph(train, spec.num_items)
        self.adjacency = normalised_adjacency(train.row_of_value, train.values, spec.num_users, spec.num_items)

    def messages_to(self, user: int) -> tuple[Tensor, list[Messages]]:
        """A user's own part (D,) of the final vector, and those of the items met."""
        nodes, weights = self.adjacency.row(user)
        x, scale = self.nodes.weight, 1.0 / (self.num_layers + 1)
        received = torch.zeros_like(x[nodes])
        for _ in range(self.num_layers):
            received = received + weights[:, None] * x[nodes]
            x = self.adjacency(x)
        parts = Messages((ITEM, f"rev_{INTERACTS}", USER), nodes - self.num_users, received * scale)
        return self.nodes.weight[user] * scale, [parts]

    def link_weights(self) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
        """The normalised weight of every edge, the same in both directions."""
        train = self.graph.train
        index = np.stack([train.row_of_value, train.values])
        weights = normalised_weights(*index)
        return {(USER, INTERACTS, ITEM): (index, weights), (ITEM, f"rev_{INTERACTS}", USER): (index[::-1], weights)}

    def without(self, edges: dict[EdgeType, np.ndarray]) -> LightGCN:
        """The model on the graph less the edges at these places of the training part; for looking on."""
        kept = np.ones(len(self.graph.train.values), dtype=bool)
        kept[edges.get((USER, INTERACTS, ITEM), [])] = False
        users, items = self.graph.train.row_of_value[kept], self.graph.train.values[kept]
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other._kept = None
        other.adjacency = normalised_adjacency(users, items, *self._sizes).to(self.nodes.weight.device)
        return other

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.num_users, self.num_items

    def vectors(self) -> tuple[Tensor, Tensor]:
        x = self.nodes.weight
        total = x
        for _ in range(self.num_layers):
            x = self.adjacency(x)
            total = total + x
        return self._split(total / (self.num_layers + 1))


class XSimGCL(LightGCN):
    """LightGCN on the layers after the first, with noise in each while training, and two of them contrasted.

    Every layer adds a random direction of length ``noise`` in the orthant of the vector. ``contrast_weight`` times
    InfoNCE at ``temperature`` between the final vectors and those of layer ``contrast_layer`` keeps users, and items,
    apart. Source: Yu et al., TKDE 2023 (arXiv 2209.02544).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 2,
        noise: NotNegative = 0.2,
        contrast_weight: NotNegative = 0.2,
        contrast_layer: Count = 1,
        temperature: Positive = 0.15,
        loss: PairLoss | AnyLoss | None = None,
        l2: NotNegative = 1e-4,
        init_std: Positive = 0.1,
        max_history: Count = 200,
    ) -> None:
        check_arguments(XSimGCL.__init__, locals(), "model")
        if contrast_layer > num_layers:
            raise GenrecError(
                f"model.contrast_layer={contrast_layer}: there are {num_layers} layers (model.num_layers). Give 1 to "
                f"{num_layers}."
            )
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            loss=loss,
            l2=l2,
            init_std=init_std,
            max_history=max_history,
        )
        self.noise = noise
        self.contrast_weight = contrast_weight
        self.contrast_layer = contrast_layer
        self.temperature = temperature

    def vectors(self) -> tuple[Tensor, Tensor]:
        final, _ = self._layers(noise=0.0)
        return self._split(final)

    def messages_to(self, user: int) -> tuple[Tensor, list[Messages]]:
        own, parts = super().messages_to(user)
        scale = (self.num_layers + 1) / self.num_layers  # the embeddings themselves are not in the mean
        return torch.zeros_like(own), [replace(part, vectors=part.vectors * scale) for part in parts]

    def loss(self, batch: PairBatch | SequenceBatch) -> Losses:
        if not self.training or isinstance(batch, SequenceBatch):
            return super().loss(batch)
        final, inner = self._layers(noise=self.noise)
        users, items = self._split(final)
        inner_users, inner_items = self._split(inner)
        items_met, users_met = (batch.positives, batch.users) if batch.whole is None else batch.whole
        met = users_met.unique(), items_met.unique()
        contrast = info_nce(users[met[0]], inner_users[met[0]], self.temperature)
        contrast = contrast + info_nce(items[met[1]], inner_items[met[1]], self.temperature)
        ranking = self._loss_of(batch, users, items)
        shrinkage = self.l2 * self._shrinkage(batch)
        parts = {"ranking": ranking.detach(), "contrast": contrast.detach(), "l2": shrinkage.detach()}
        return Losses(ranking + self.contrast_weight * contrast + shrinkage, len(batch.users), parts)

    def _layers(self, *, noise: float) -> tuple[Tensor, Tensor]:
        """The mean of the layers (U + N, D), and the layer that it is contrasted with."""
        x, total, inner = self.nodes.weight, None, None
        for layer in range(1, self.num_layers + 1):
            x = self.adjacency(x)
            if noise > 0:
                x = x + torch.sign(x) * functional.normalize(torch.rand_like(x), dim=1) * noise
            total = x if total is None else total + x
            if layer == self.contrast_layer:
                inner = x
        assert total is not None and inner is not None
        return total / self.num_layers, inner


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding row i of ``second`` (R, D) by row i of ``first``, cosines over ``temperature``."""
    scores = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
    return functional.cross_entropy(scores, torch.arange(len(first), device=first.device))
