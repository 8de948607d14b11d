"""Graph attention over users, items and whatever else is known of them, each type of edge with an attention of its own.

U users, N items, E edges of a type, D width, H heads.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count, NotNegative, Positive, Rate, check_arguments
from genrec.contracts import DataSpec, GenrecError, PairBatch
from genrec.graph import INTERACTS, ITEM, USER, EdgeType, TypedGraph, both_ways
from genrec.losses import AnyLoss, PairLoss
from genrec.models.text import text_features
from genrec.models.user_item import Messages, UserItemModel
from genrec.nn.edge_attention import Incidence, edge_attention
from genrec.nn.neighbours import NeighbourSampler

Attention = dict[EdgeType, tuple[Tensor, Tensor]]  # index (2, E) and weights (E,), which add up to 1 at every target

_FACTOR_OF_RELATIONS = 0.1  # of what tags and friends send, before anything is learned


@dataclass(frozen=True)
class Edges:
    """The edges of one type: ``index`` (2, E), ``features`` (E, 1), and 1 / root of the number of edges that leave a
    source ``of_source`` (S, 1) and the root of the number that reach a target ``of_target`` (T, 1). Edges are in the
    order of their targets."""

    index: Tensor
    features: Tensor
    of_source: Tensor
    of_target: Tensor

    def at(self, places: Tensor) -> Edges:
        """Some of the edges, between the same nodes."""
        return replace(self, index=self.index[:, places], features=self.features[places])

    @cached_property
    def incidence(self) -> Incidence:
        return Incidence.of(self.index, len(self.of_source), len(self.of_target))


class GAT(UserItemModel):
    """GATv2 attention (Brody et al., ICLR 2022) from the neighbours of every type, and the mean of all layers.

    Every edge runs both ways; the reverse of ``user interacts item`` is ``item rev_interacts user``. Edges carry the
    logarithm of their weight as a feature. What a node receives over an edge type is the sum of its neighbours' values
    by attention, times the root of its own degree over those of the neighbours; learned factors add up the types.
    Values are linear, so a score is a sum over the neighbours of a user, which is what explanations are read off.
    Attention begins uniform and values are the neighbours' vectors, or begin so where ``transform_values`` learns a
    linear map of them: without relations, training begins at LightGCN.

    ``text`` adds a learned projection of the item's text vector to its embedding.

    ``num_neighbors``, one number per layer, trains on so many sampled neighbours of the nodes of a batch instead of the
    whole graph (None). ``relations`` False leaves only users and items.
    """

    item_vectors_option = "text"  # the key of the config that asks for item vectors

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 64,
        num_layers: Count = 2,
        num_heads: Count = 4,
        dropout: Rate = 0.1,
        relations: bool = True,
        edge_features: bool = True,
        transform_values: bool = False,
        text: bool = False,
        num_neighbors: Sequence[Count] | None = None,
        loss: PairLoss | AnyLoss | None = None,
        l2: NotNegative = 1e-4,
        init_std: Positive = 0.1,
        max_history: Count = 200,
    ) -> None:
        check_arguments(GAT.__init__, locals(), "model")
        if embedding_dim % num_heads:
            raise GenrecError(f"model.embedding_dim={embedding_dim} must be a multiple of model.num_heads={num_heads}.")
        if num_neighbors is not None and len(num_neighbors) != num_layers:
            raise GenrecError(
                f"model.num_neighbors={list(num_neighbors)}: give one number for each of the {num_layers} layers "
                "(model.num_layers)."
            )
        super().__init__(
            spec, embedding_dim=embedding_dim, loss=loss, l2=l2, init_std=init_std, max_history=max_history
        )
        graph = spec.graph
        if graph is None:
            assert spec.train is not None
            graph = TypedGraph(spec.train, spec.num_items)
        if not relations:
            graph = TypedGraph(graph.train, graph.num_items, graph.train_weights)
        self.graph = graph
        self.num_layers = num_layers
        self.edge_types: list[EdgeType] = []
        self.orders: dict[EdgeType, np.ndarray] = {}  # places in the graph of the edges as they stand here
        self._edges: dict[EdgeType, Edges] = {}
        both = both_ways(graph)
        for place, (key, (index, weights)) in enumerate(both.items()):
            self.edge_types.append(key)
            order = np.argsort(index[1], kind="stable")
            index, weights = index[:, order], weights[order]
            self.orders[key] = order
            features = np.log1p(weights)[:, None]
            if len(features):
                features = (features - features.mean()) / max(float(features.std()), 1e-6)
            self.register_buffer(f"index_{place}", torch.from_numpy(index), persistent=False)
            self.register_buffer(f"features_{place}", torch.from_numpy(features).float(), persistent=False)
            for name, ends, kind, power in (
                ("of_source", index[0], key[0], -0.5),
                ("of_target", index[1], key[2], 0.5),
            ):
                degrees = np.maximum(np.bincount(ends, minlength=graph.num_nodes[kind]), 1)
                scale = torch.from_numpy(degrees[:, None] ** power).float()
                self.register_buffer(f"{name}_{place}", scale, persistent=False)
        others = {kind: count for kind, count in graph.num_nodes.items() if kind not in (USER, ITEM)}
        self.others = nn.ModuleDict(
            {f"of_{kind}": nn.Embedding(count, embedding_dim) for kind, count in others.items()}
        )
        for table in self.others.values():
            nn.init.normal_(table.weight, std=init_std)  # pyright: ignore[reportArgumentType]
        self.layers = nn.ModuleList(
            TypedAttention(
                self.edge_types,
                embedding_dim,
                num_heads,
                dropout,
                edge_features=edge_features,
                transform_values=transform_values,
            )
            for _ in range(num_layers)
        )
        self.text: nn.Linear | None = None
        if text:
            self.features: Tensor  # (N, F)
            self.register_buffer("features", text_features(spec), persistent=False)
            self.text = nn.Linear(self.features.shape[1], embedding_dim, bias=False)
            nn.init.normal_(self.text.weight, std=init_std * self.features.shape[1] ** -0.5)
        self.sampler: NeighbourSampler | None = None
        if num_neighbors is not None:
            if self.pair_loss.num_negatives == 0:
                raise GenrecError(
                    "model.num_neighbors sees only the items of a batch and their negatives, and this loss wants the "
                    "whole catalogue. Use model.loss._target_=genrec.losses.BPR, or model.num_neighbors=null."
                )
            ordered = {key: index[:, self.orders[key]] for key, (index, _) in both.items()}
            self.sampler = NeighbourSampler(ordered, graph.num_nodes, list(num_neighbors))

    def edges(self) -> dict[EdgeType, Edges]:
        """All edges by type."""
        parts = [field.name for field in fields(Edges)]
        for place, key in enumerate(self.edge_types):
            features = getattr(self, f"features_{place}")
            if key not in self._edges or self._edges[key].features is not features:  # moved or of another type
                self._edges[key] = Edges(**{name: getattr(self, f"{name}_{place}") for name in parts})
        return self._edges

    def tables(self) -> dict[str, Tensor]:
        """The embeddings of all nodes, by type."""
        users, items = self._split(self.nodes.weight)
        if self.text is not None:
            items = items + self.text(self.features)
        others: dict[str, Any] = dict(self.others.items())
        tables = {name.removeprefix("of_"): table.weight for name, table in others.items()}
        return {USER: users, ITEM: items, **tables}

    def vectors(self) -> tuple[Tensor, Tensor]:
        final = self.run(self.tables(), self.edges())
        return final[USER], final[ITEM]

    def run(
        self, x: dict[str, Tensor], edges: Mapping[EdgeType, Edges], attention: list[Attention] | None = None
    ) -> dict[str, Tensor]:
        """The mean over layers of the vectors of each type; a list given as ``attention`` gets those of each layer."""
        total = dict(x)
        for layer in self.layers:
            found: Attention | None = None if attention is None else {}
            x = layer(x, edges, found)
            if attention is not None and found is not None:
                attention.append(found)
            total = {kind: total[kind] + x[kind] for kind in total}
        return {kind: value / (self.num_layers + 1) for kind, value in total.items()}

    # -- why

    def messages_to(self, user: int) -> tuple[Tensor, list[Messages]]:
        """A user's own part (D,) of the final vector, and those of the neighbours of every edge type."""
        x, scale = self.tables(), 1.0 / (self.num_layers + 1)
        own = x[USER][user] * scale
        parts: dict[EdgeType, Messages] = {}
        for layer in self.layers:
            assert isinstance(layer, TypedAttention)
            for key, edges in self.edges().items():
                if key[2] != USER:
                    continue
                places = torch.nonzero(edges.index[1] == user).flatten()
                nodes, vectors = layer.messages(key, x, edges.at(places), user)
                vectors = vectors * scale
                known = parts.get(key)
                parts[key] = Messages(key, nodes, vectors if known is None else known.vectors + vectors)
            x = layer(x, self.edges())
        return own, list(parts.values())

    def link_weights(self) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
        """Attention, mean over heads and layers."""
        attention: list[Attention] = []
        self.run(self.tables(), self.edges(), attention)
        return {
            key: (index.cpu().numpy(), torch.stack([layer[key][1] for layer in attention]).mean(0).cpu().numpy())
            for key, (index, _) in attention[0].items()
        }

    def without(self, edges: dict[EdgeType, np.ndarray]) -> GAT:
        """The model on the graph less the edges at these places of ``graph.edges``, both directions; for looking on."""
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other._kept = None
        other._edges, other.orders = {}, dict(self.orders)
        for place, (source, name, target) in enumerate(self.edge_types):
            gone = edges.get((source, name, target))
            if gone is None and name.startswith("rev_"):
                gone = edges.get((target, name.removeprefix("rev_"), source))
            if gone is not None:
                index = getattr(self, f"index_{place}")
                order = self.orders[source, name, target]
                other.orders[source, name, target] = order[~np.isin(order, gone)]
                kept = torch.from_numpy(~np.isin(order, gone)).to(index.device)
                other._buffers[f"index_{place}"] = index[:, kept]
                other._buffers[f"features_{place}"] = getattr(self, f"features_{place}")[kept]
        return other

    # -- training on samples

    def _loss_of_pairs(self, batch: PairBatch) -> Tensor:
        if self.sampler is None or not self.training:
            return super()._loss_of_pairs(batch)
        items, places = torch.cat([batch.positives[:, None], batch.negatives], dim=1).unique(return_inverse=True)
        users, rows = batch.users.unique(return_inverse=True)
        part = self.sampler.sample({USER: users.cpu().numpy(), ITEM: items.cpu().numpy()})
        device = users.device
        tables = self.tables()
        nodes = {kind: torch.from_numpy(found).to(device) for kind, found in part.nodes.items()}
        x = {kind: nn.functional.embedding(found, tables[kind]) for kind, found in nodes.items()}
        edges = {}
        for key, whole in self.edges().items():
            index, chosen = part.edges[key]
            order = np.argsort(index[1], kind="stable")
            index, chosen = (torch.from_numpy(array[..., order]).to(device) for array in (index, chosen))
            of_source, of_target = whole.of_source[nodes[key[0]]], whole.of_target[nodes[key[2]]]
            edges[key] = Edges(index, whole.features[chosen], of_source, of_target)
        final = self.run(x, edges)  # the nodes of the batch come first
        return self._pair_loss(final[USER], final[ITEM], rows, places)


class TypedAttention(nn.Module):
    """One layer: for each edge type a GATv2 convolution with linear values, and a learned factor."""

    def __init__(
        self,
        edge_types: Sequence[EdgeType],
        dim: int,
        num_heads: int,
        dropout: float,
        *,
        edge_features: bool,
        transform_values: bool,
    ) -> None:
        from torch_geometric.nn import GATv2Conv

        super().__init__()
        self.convolutions = nn.ModuleDict()
        self.factors = nn.ParameterDict()
        self.edge_features = edge_features
        for key in edge_types:
            convolution = GATv2Conv(
                (dim, dim),
                dim // num_heads,
                num_heads,
                dropout=dropout,
                add_self_loops=False,
                edge_dim=1 if edge_features else None,
                bias=False,
            )
            with torch.no_grad():
                nn.init.eye_(convolution.lin_l.weight)
                nn.init.eye_(convolution.lin_r.weight)
                nn.init.zeros_(convolution.att)
            convolution.lin_l.weight.requires_grad_(transform_values)
            self.convolutions["__".join(key)] = convolution
            main = key[1] in (INTERACTS, f"rev_{INTERACTS}")
            self.factors["__".join(key)] = nn.Parameter(torch.full((), 1.0 if main else _FACTOR_OF_RELATIONS))

    def forward(
        self, x: dict[str, Tensor], edges: Mapping[EdgeType, Edges], attention: Attention | None = None
    ) -> dict[str, Tensor]:
        """Vectors by type to what their neighbours send; ``attention`` is filled where it is a dictionary."""
        out = {kind: torch.zeros_like(value) for kind, value in x.items()}
        for key, part in edges.items():
            received, alpha = self._attend(key, x, part)
            if attention is not None:
                attention[key] = part.index, alpha.mean(dim=1)
            out[key[2]] = out[key[2]] + self.factors["__".join(key)] * part.of_target * received
        return out

    def _attend(self, key: EdgeType, x: dict[str, Tensor], edges: Edges) -> tuple[Tensor, Tensor]:
        """What every target receives (T, D), and the attention (E, H) to every edge."""
        with torch.autocast(edges.index.device.type, enabled=False):
            return self._attend_exactly(key, x, edges)

    def _attend_exactly(self, key: EdgeType, x: dict[str, Tensor], edges: Edges) -> tuple[Tensor, Tensor]:
        convolution: Any = self.convolutions["__".join(key)]
        ends = x[key[0]] * edges.of_source, x[key[2]]
        features = edges.features if self.edge_features else None
        if edges.index.device.type != "cpu":
            received, (_, alpha) = convolution(ends, edges.index, features, return_attention_weights=True)
            return received, alpha
        return edge_attention(
            convolution.lin_l(ends[0]),
            convolution.lin_r(ends[1]),
            features,
            convolution.lin_edge.weight if self.edge_features else None,
            convolution.att[0],
            edges.incidence,
            dropout=convolution.dropout if self.training else 0.0,
        )

    def messages(self, key: EdgeType, x: dict[str, Tensor], edges: Edges, node: int) -> tuple[Tensor, Tensor]:
        """The neighbours (n,) at the sources of all incoming edges of a node, and what each of them sends it (n, D)."""
        convolution: Any = self.convolutions["__".join(key)]
        _, alpha = self._attend(key, x, edges)
        sources = edges.index[0]
        values = convolution.lin_l(x[key[0]][sources] * edges.of_source[sources])
        values = values.view(len(sources), convolution.heads, convolution.out_channels)
        scale = self.factors["__".join(key)] * edges.of_target[node]
        return sources, (alpha[:, :, None] * values).flatten(1) * scale
