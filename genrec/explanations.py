"""Why a graph model recommends an item: the neighbours whose messages made the score, and what ties them to the item.

The final vector of a user is the user's own embedding plus one vector for every neighbour that sent messages, so the
score of an item is a sum over these, in the measure in which the loss compares vectors: nothing is estimated. The ties
are the nodes that stand beside a neighbour and beside the item, weighed by the product of the attention that both pay
to them.

U users, N items, D width, n neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import GenrecError, HistoryBatch
from genrec.graph import ITEM, USER, EdgeType, TypedGraph
from genrec.models.user_item import Messages
from genrec.nn.serving import evaluating


@runtime_checkable
class Explainable(Protocol):
    """A model whose users are sums over their neighbours."""

    graph: TypedGraph

    def vectors(self) -> tuple[Tensor, Tensor]: ...
    def encode_users(self, batch: HistoryBatch) -> Tensor: ...
    def encode_items(self) -> Tensor: ...
    def messages_to(self, user: int) -> tuple[Tensor, list[Messages]]:
        """The part of a user's final vector that is the user's own (D,), and those of the neighbours."""
        ...

    def link_weights(self) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
        """How much every node heeds each neighbour: index (2, E) and weights (E,) by edge type."""
        ...

    def without(self, edges: dict[EdgeType, np.ndarray]) -> Any:
        """The model on the graph less the edges whose places are given by edge type; parameters are shared."""
        ...


@dataclass(frozen=True)
class Link:
    """A node that a neighbour and the item have in common; ``weight`` is the product of what both heed it."""

    kind: str
    node: int
    weight: float


@dataclass(frozen=True)
class Evidence:
    """What one neighbour of the user adds to the score, as much of it as ``contribution`` says."""

    relation: str
    kind: str
    node: int
    contribution: float
    links: list[Link] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """The score of an item for a user as a sum: ``own`` and every neighbour's part.

    ``evidence`` are the neighbours that add most, strongest first; ``support`` is the sum of all parts above 0, of
    neighbours that are not named as well.
    """

    user: int
    item: int
    score: float
    own: float
    support: float
    evidence: list[Evidence]

    def share(self, evidence: Evidence) -> float:
        """The part of what speaks for the item that this neighbour brings, 0 to 1; below 0 if it speaks against it."""
        return evidence.contribution / self.support if self.support > 0 else 0.0


class Explainer:
    """Explains the scores of one trained model."""

    def __init__(self, model: Any) -> None:
        if not isinstance(model, Explainable):
            raise GenrecError(
                f"{type(model).__name__} passes no messages, so it has no neighbours to name. Explanations need "
                "a graph model: model=gat or model=lightgcn."
            )
        self.model: Any = model
        with evaluating(self.model), torch.no_grad():
            self.users, _ = model.vectors()
            self.items = model.encode_items()
            self.heeded = _Heeded(model.link_weights())

    def explain(self, user: int, item: int, *, max_evidence: int = 5) -> Explanation:
        """The score of ``item`` for ``user`` taken apart, with the ``max_evidence`` neighbours that add most."""
        if self.model.graph.train.lengths[user] == 0:
            raise GenrecError(
                "This user has no training interactions, so no messages came in: what was recommended lies near the "
                "items of the history. Ask about a user who was trained on."
            )
        with evaluating(self.model), torch.no_grad():
            own, messages = self.model.messages_to(user)
            scored, whole = _scored(self.model, user), self.users[user]
            # A loss may bring the vectors that it compares to another length: that of the user is shared by all parts.
            direction = self.items[item] * (scored @ whole) / (whole @ whole).clamp(min=1e-30)
            found = [
                Evidence(part.edge_type[1].removeprefix("rev_"), part.kind, int(node), float(value))
                for part in messages
                for node, value in zip(part.nodes, part.vectors @ direction, strict=True)
            ]
            score, own_part = float(scored @ self.items[item]), float(own @ direction)
        merged: dict[tuple[str, str, int], Evidence] = {}
        for each in found:
            key = (each.relation, each.kind, each.node)
            known = merged.get(key)
            merged[key] = each if known is None else replace(known, contribution=known.contribution + each.contribution)
        ranked = sorted(merged.values(), key=lambda each: -each.contribution)[:max_evidence]
        beside_item = self.heeded.of(ITEM, item)
        linked = [replace(each, links=self._links(each, user, item, beside_item)) for each in ranked]
        support = max(own_part, 0.0) + sum(max(each.contribution, 0.0) for each in merged.values())
        return Explanation(user, item, score, own_part, support, linked)

    def _links(self, evidence: Evidence, user: int, item: int, there: dict[tuple[str, int], float]) -> list[Link]:
        """Nodes that stand beside both ends, strongest first; the user is no reason for the user's own list."""
        here = self.heeded.of(evidence.kind, evidence.node)
        common = [
            Link(kind, node, here[kind, node] * there[kind, node])
            for kind, node in here.keys() & there.keys()
            if (kind, node) != (USER, user)
        ]
        direct = there.get((evidence.kind, evidence.node))
        if direct is not None:  # a friend who met the item
            common.append(Link(ITEM, item, direct))
        return sorted(common, key=lambda link: (-link.weight, link.kind, link.node))

    def fidelity(
        self, users: Sequence[int], *, max_evidence: int = 5, seed: int = 0, masked: Any = None
    ) -> dict[str, float]:
        """How much the score of each user's best item falls when the named edges are taken away, and when as many of
        the same user's edges at random are.

        Scores are measured from their mean over the catalogue, since only differences rank. ``masked`` (U rows) are
        items that are not recommended. ``named`` and ``random`` are mean falls, ``better`` is the share of users for
        whom the named edges matter more, ``users`` how many had more edges than were named.
        """
        generator = np.random.default_rng(seed)
        falls: list[tuple[float, ...]] = []
        for user in users:
            scores = self.items @ _scored(self.model, user)
            if masked is not None:
                scores = scores.clone()
                scores[torch.from_numpy(np.asarray(masked[user]))] = -torch.inf
            item = int(scores.argmax())
            explanation = self.explain(user, item, max_evidence=max_evidence)
            places = _edges_of(self.model.graph, user)
            named = {(each.kind, each.node) for each in explanation.evidence}
            chosen = [place for place in places if place[2] in named]
            if not chosen or len(places) < 2 * len(chosen):
                continue
            drawn = [places[i] for i in generator.choice(len(places), len(chosen), replace=False)]
            before = self._standing(self.model, user, item)
            less = [self.model.without(_grouped(edges)) for edges in (chosen, drawn)]
            falls.append(tuple(before - self._standing(model, user, item) for model in less))
        if not falls:
            raise GenrecError("No user has twice as many edges as are named, so there is nothing to compare with.")
        found = np.array(falls)
        return {
            "named": float(found[:, 0].mean()),
            "random": float(found[:, 1].mean()),
            "better": float((found[:, 0] > found[:, 1]).mean()),
            "users": len(falls),
        }

    def _standing(self, model: Any, user: int, item: int) -> float:
        """The score of an item less the mean over all items."""
        with evaluating(model), torch.no_grad():
            scores = model.encode_items() @ _scored(model, user)
            return float(scores[item] - scores.mean())


def _scored(model: Any, user: int) -> Tensor:
    """The vector (D,) of a trained user whose products with ``encode_items`` are the scores."""
    device = next(model.parameters()).device
    users, history = torch.tensor([user], device=device), torch.zeros(1, 1, dtype=torch.long, device=device)
    return model.encode_users(HistoryBatch(users, history, history[0]))[0]


class _Heeded:
    """The neighbours of any node and how much it heeds each."""

    def __init__(self, links: dict[EdgeType, tuple[np.ndarray, np.ndarray]]) -> None:
        self.sorted = []
        for (source, _, target), (index, weights) in links.items():
            order = np.argsort(index[1], kind="stable")
            self.sorted.append((source, target, index[0, order], index[1, order], weights[order]))

    def of(self, kind: str, node: int) -> dict[tuple[str, int], float]:
        found: dict[tuple[str, int], float] = {}
        for source, target, sources, targets, weights in self.sorted:
            if target != kind:
                continue
            begin, end = np.searchsorted(targets, [node, node + 1])
            for here, weight in zip(sources[begin:end].tolist(), weights[begin:end].tolist(), strict=True):
                found[source, here] = found.get((source, here), 0.0) + weight
        return found


def _edges_of(graph: TypedGraph, user: int) -> list[tuple[EdgeType, int, tuple[str, int]]]:
    """The edges at a user: type, place and the node at the other end. A symmetric relation counts what it hears."""
    found = []
    for key, (index, _) in graph.edges.items():
        source, _, target = key
        if source == USER and target != USER:
            found += [(key, int(p), (target, int(index[1, p]))) for p in np.flatnonzero(index[0] == user)]
        elif target == USER:
            found += [(key, int(p), (source, int(index[0, p]))) for p in np.flatnonzero(index[1] == user)]
    return found


def _grouped(edges: Sequence[tuple[EdgeType, int, tuple[str, int]]]) -> dict[EdgeType, np.ndarray]:
    """Places of edges by type."""
    found: dict[EdgeType, list[int]] = {}
    for key, place, _ in edges:
        found.setdefault(key, []).append(place)
    return {key: np.array(places) for key, places in found.items()}
