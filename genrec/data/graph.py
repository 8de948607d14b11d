"""Batches of training edges beside items that their users did not meet.

B edges of a batch, n negatives of each.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from genrec.artifacts import fingerprint
from genrec.contracts import GenrecError, PairBatch
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencePlan, SequencesView
from genrec.graph import TypedGraph

Sampling = Literal["uniform", "popularity"]

_TRIES = 20  # draws of a negative before an observed one is kept: a user who met nearly everything


class Observed:
    """Which training pairs there are, looked up many at a time."""

    def __init__(self, train: Ragged, num_items: int) -> None:
        self.num_items = num_items
        self.keys = np.unique(train.row_of_value * num_items + train.values)

    def __call__(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether each user met each item; arrays of one shape."""
        if not len(self.keys):
            return np.zeros(users.shape, dtype=bool)
        wanted = users * self.num_items + items
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return self.keys[places] == wanted


class PairPlan:
    """One epoch over all training edges, each with ``num_negatives`` items that its user did not meet in training.

    ``sampling`` draws them uniformly or in proportion to their training counts to the power of 3/4 (as word2vec does).
    """

    def __init__(
        self,
        train: Ragged,
        observed: Observed,
        *,
        num_negatives: int,
        sampling: Sampling,
        batch_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        self.users, self.items = train.row_of_value, train.values
        self.observed = observed
        self.num_negatives = num_negatives
        self.batch_size = batch_size
        self.seed, self.epoch = seed, epoch
        self.order = np.random.default_rng([seed, epoch]).permutation(len(self.items))
        self.chances: np.ndarray | None = None
        if sampling == "popularity":
            weights = np.bincount(self.items, minlength=observed.num_items) ** 0.75
            self.chances = np.cumsum(weights) / np.cumsum(weights)[-1]  # ends at 1 exactly

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> PairBatch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        users, positives = self.users[chosen], self.items[chosen]
        generator = np.random.default_rng([self.seed, self.epoch, index])
        return PairBatch(
            users=torch.from_numpy(users),
            positives=torch.from_numpy(positives),
            negatives=torch.from_numpy(self._negatives(users, generator)),
        )

    def _negatives(self, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(B, n) items; those observed are drawn again, a bounded number of times."""
        repeated = np.repeat(users, self.num_negatives)
        items = self._draw(len(repeated), generator)
        left = np.flatnonzero(self.observed(repeated, items))
        for _ in range(_TRIES):
            if not len(left):
                break
            items[left] = self._draw(len(left), generator)
            left = left[self.observed(repeated[left], items[left])]
        return items.reshape(len(users), self.num_negatives)

    def _draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        if self.chances is None:
            return generator.integers(self.observed.num_items, size=count)
        return np.searchsorted(self.chances, generator.random(count), side="right").astype(np.int64)


class GraphView(SequencesView):
    """The histories of a data set with its training graph; one training sample is one training edge."""

    def __init__(self, sequences: SequencesView, graph: TypedGraph) -> None:
        super().__init__(sequences.train, sequences.val, sequences.test, sequences.num_items)
        self.graph = graph

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("graph view", super().fingerprint, self.graph.fingerprint)

    @cached_property
    def observed(self) -> Observed:
        return Observed(self.train, self.num_items)

    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> PairPlan | SequencePlan:
        """The shuffled edges of one epoch; ``batch_size`` counts them, its ``pair_loss`` says which negatives."""
        if getattr(model, "training_mode", None) != "pairs":
            return super().train_plan(model, batch_size=batch_size, seed=seed, epoch=epoch)
        if not len(self.train.values):
            raise GenrecError("The training part holds no interaction. Use more data, or another split.")
        return PairPlan(
            self.train,
            self.observed,
            num_negatives=model.pair_loss.num_negatives,
            sampling=model.pair_loss.sampling,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
        )
