"""Users, items and what else is known of them as a typed graph of training edges.

U users, N items, E edges of a type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from genrec.artifacts import fingerprint
from genrec.contracts import GenrecError
from genrec.data.ragged import Ragged

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

USER, ITEM, INTERACTS = "user", "item", "interacts"
EdgeType = tuple[str, str, str]  # source type, name, target type


@dataclass(frozen=True)
class Relation:
    """Edges from users or items to the nodes of a further type, or among users.

    ``sources`` (E,) are internal indices of users or items (``source`` says which), ``targets`` (E,) indices into
    ``names`` (T,), or internal indices again where ``target`` is "user" or "item" (``names`` is then empty).
    ``weights`` (E,) are above 0. No edge may tell of an interaction that could be held out.
    """

    source: str
    target: str
    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.sources) == len(self.targets) == len(self.weights):
            raise ValueError("sources, targets and weights of a relation have equal length")

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class TypedGraph:
    """Users, items and the nodes of further types, tied by training interactions and by relations.

    ``train`` (U rows) holds the training items of each user, ``train_weights`` one number above 0 for each of them
    (play counts, ratings; None: 1). Nodes of one type are numbered from 0, apart from those of every other type.
    """

    train: Ragged
    num_items: int
    train_weights: np.ndarray | None = None
    relations: Mapping[str, Relation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {USER: len(self.train), ITEM: self.num_items}
        names: dict[str, list[str]] = {}
        for name, relation in self.relations.items():
            if "." in relation.target or "." in name:
                raise GenrecError(f"The relation {name} to {relation.target}: a node type has no dot in its name.")
            if relation.target in sizes and relation.names:
                raise GenrecError(
                    f"The relation {name} names {relation.target}s of its own, but {relation.target}s are those of the "
                    "data. Give the column another name."
                )
            if names.setdefault(relation.target, relation.names) != relation.names:
                raise GenrecError(f"Two relations name the nodes of the type {relation.target} differently.")
            for ends, kind in ((relation.sources, relation.source), (relation.targets, relation.target)):
                count = sizes.get(kind, len(relation.names))
                if len(ends) and not 0 <= ends.min() <= ends.max() < count:
                    raise GenrecError(f"The relation {name} has an edge outside of the {count} nodes of {kind}.")

    @cached_property
    def num_nodes(self) -> dict[str, int]:
        """Nodes by type, users and items first."""
        counts = {USER: len(self.train), ITEM: self.num_items}
        for relation in self.relations.values():
            counts.setdefault(relation.target, len(relation.names))
        return counts

    @cached_property
    def edges(self) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
        """Index (2, E) int64 and weight (E,) float32 of the edges, by (source type, name, target type)."""
        ones = np.ones(len(self.train.values), dtype=np.float32)
        weights = ones if self.train_weights is None else self.train_weights.astype(np.float32)
        found = {(USER, INTERACTS, ITEM): (np.stack([self.train.row_of_value, self.train.values]), weights)}
        for name, relation in self.relations.items():
            index = np.stack([relation.sources, relation.targets])
            found[relation.source, name, relation.target] = (index, relation.weights.astype(np.float32))
        return found

    def names(self, node_type: str) -> list[str]:
        """The names of nodes that relations brought along."""
        return next((relation.names for relation in self.relations.values() if relation.target == node_type), [])

    def hetero(self, features: Mapping[str, np.ndarray] | None = None) -> HeteroData:
        """The graph for torch-geometric: ``edge_index`` and ``edge_attr`` (E, 1), every edge also reversed as
        ``rev_<name>``; a relation among users or among items is symmetric already if its source listed both ways.
        ``features`` (nodes, F) by type become ``x``."""
        from torch_geometric.data import HeteroData

        data = HeteroData()
        for kind, count in self.num_nodes.items():
            data[kind].num_nodes = count
        for kind, values in (features or {}).items():
            if len(values) != self.num_nodes.get(kind):
                raise ValueError(
                    f"{len(values)} features were given for {self.num_nodes.get(kind, 0)} nodes of {kind!r}"
                )
            data[kind].x = torch.from_numpy(np.ascontiguousarray(values))
        for (source, name, target), (index, weights) in self.edges.items():
            edge_index, edge_attr = torch.from_numpy(index), torch.from_numpy(weights)[:, None]
            data[source, name, target].edge_index = edge_index
            data[source, name, target].edge_attr = edge_attr
            if source != target:
                data[target, f"rev_{name}", source].edge_index = edge_index.flip(0)
                data[target, f"rev_{name}", source].edge_attr = edge_attr
        return data

    @cached_property
    def fingerprint(self) -> str:
        parts = [[*key, index, weights] for key, (index, weights) in self.edges.items()]
        return fingerprint("graph", self.num_nodes, parts)


class DeferredGraph(TypedGraph):
    """The graph that ``build`` gives, built when something of it is first asked for: most models look at none."""

    def __init__(self, build: Callable[[], TypedGraph]) -> None:
        object.__setattr__(self, "_build", build)

    @cached_property
    def _built(self) -> TypedGraph:
        return self._build()  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def train(self) -> Ragged:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.train

    @property
    def num_items(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.num_items

    @property
    def train_weights(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.train_weights

    @property
    def relations(self) -> Mapping[str, Relation]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.relations

    @property
    def num_nodes(self) -> dict[str, int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.num_nodes

    @property
    def edges(self) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.edges

    @property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._built.fingerprint


def both_ways(graph: TypedGraph) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
    """Every edge type and, where its ends differ, its reverse: index (2, E), sources above targets, and weights."""
    found: dict[EdgeType, tuple[np.ndarray, np.ndarray]] = {}
    for (source, name, target), (index, weights) in graph.edges.items():
        found[source, name, target] = index, weights
        if source != target:
            found[target, f"rev_{name}", source] = np.ascontiguousarray(index[::-1]), weights
    return found
