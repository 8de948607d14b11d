"""Samples of the neighbourhoods of some nodes, so that graphs that do not fit can be trained on a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.graph import EdgeType


@dataclass(frozen=True)
class Neighbourhood:
    """A part of a graph: ``nodes`` by type (the seeds first), and by edge type the index (2, E) into these nodes with
    the places (E,) of the edges in the whole graph."""

    nodes: dict[str, np.ndarray]
    edges: dict[EdgeType, tuple[np.ndarray, np.ndarray]]


class NeighbourSampler:
    """Draws up to ``fanouts[l]`` incoming edges of every edge type for each node that was reached in hop l.

    Nodes of a higher degree draw with replacement and keep what is distinct (Hamilton et al., NeurIPS 2017, sample
    uniformly too). The draws come from NumPy's global generator, which runs seed and checkpoints keep.
    """

    def __init__(
        self,
        edges: Mapping[EdgeType, np.ndarray],
        num_nodes: Mapping[str, int],
        fanouts: Sequence[int],
    ) -> None:
        self.num_nodes = dict(num_nodes)
        self.fanouts = list(fanouts)
        self.index = dict(edges)
        self.incoming: dict[EdgeType, tuple[np.ndarray, np.ndarray]] = {}
        for key, index in self.index.items():
            counts = np.bincount(index[1], minlength=num_nodes[key[2]])
            self.incoming[key] = np.concatenate([[0], np.cumsum(counts)]), np.argsort(index[1], kind="stable")

    def sample(self, seeds: Mapping[str, np.ndarray]) -> Neighbourhood:
        """The neighbourhood of ``seeds``, distinct nodes by type."""
        place = {kind: np.full(count, -1, dtype=np.int64) for kind, count in self.num_nodes.items()}
        nodes = {kind: [np.asarray(seeds.get(kind, ()), dtype=np.int64)] for kind in self.num_nodes}
        for kind, (first,) in nodes.items():
            place[kind][first] = np.arange(len(first))
        counts = {kind: len(parts[0]) for kind, parts in nodes.items()}
        frontier = {kind: parts[0] for kind, parts in nodes.items()}
        chosen: dict[EdgeType, list[np.ndarray]] = {key: [] for key in self.incoming}
        for fanout in self.fanouts:
            reached: dict[str, list[np.ndarray]] = {kind: [] for kind in self.num_nodes}
            for key, index in self.index.items():
                drawn = self._draw(key, frontier[key[2]], fanout)
                chosen[key].append(drawn)
                reached[key[0]].append(index[0, drawn])
            for kind, parts in reached.items():
                found = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
                found = found[place[kind][found] < 0]
                place[kind][found] = counts[kind] + np.arange(len(found))
                counts[kind] += len(found)
                nodes[kind].append(found)
                frontier[kind] = found
        edges = {}
        for key, index in self.index.items():
            places = np.unique(np.concatenate(chosen[key]))
            edges[key] = np.stack([place[key[0]][index[0, places]], place[key[2]][index[1, places]]]), places
        return Neighbourhood({kind: np.concatenate(parts) for kind, parts in nodes.items()}, edges)

    def _draw(self, key: EdgeType, targets: np.ndarray, fanout: int) -> np.ndarray:
        """Places of up to ``fanout`` distinct incoming edges of each target."""
        offsets, order = self.incoming[key]
        degrees = offsets[targets + 1] - offsets[targets]
        few = degrees <= fanout
        within = np.arange(fanout)
        taken = (offsets[targets[few]][:, None] + within)[within < degrees[few][:, None]]
        many = targets[~few]
        drawn = (np.random.random((len(many), fanout)) * degrees[~few][:, None]).astype(np.int64)
        return order[np.unique(np.concatenate([taken, (offsets[many][:, None] + drawn).ravel()]))]
