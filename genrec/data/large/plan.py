"""Training batches of sequences on disk: shuffled within a few blocks of users at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from genrec.contracts import GenrecError, SequenceBatch
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView, TrainingRows, cut_rows, share_rows, shuffled_batches

_KEPT = 2  # buffers whose batches stay planned: a thread that cuts ahead may be in the next one


@dataclass(frozen=True)
class Shuffling:
    """Users are shuffled in blocks of about ``block_values`` values each, and the rows of ``blocks`` such blocks, drawn
    at random, together. Memory grows with the product of both."""

    block_values: int = 1 << 18
    blocks: int = 16


class BlockPlan:
    """The batches of one epoch. Blocks of consecutive users come in random order, a few at a time fill a buffer, and
    the rows of a buffer are shuffled and cut as ``genrec.data.sequences.SequencePlan`` does all.

    ``plan[i]`` is a pure function of the data, the seed, the epoch and i: it plans the one buffer that batch i is in.
    """

    def __init__(
        self, view: SequencesView, model: Any, *, batch_size: int, seed: int, epoch: int, shuffling: Shuffling
    ) -> None:
        self.view, self.model = view, model
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch
        self.edges = _blocks(view.train.offsets, shuffling.block_values)
        order = np.random.default_rng([seed, epoch]).permutation(len(self.edges) - 1)
        self.buffers = [order[begin : begin + shuffling.blocks] for begin in range(0, len(order), shuffling.blocks)]
        self._planned: dict[int, tuple[TrainingRows, list[np.ndarray]]] = {}

    @cached_property
    def begins(self) -> np.ndarray:
        """(buffers + 1,) the first batch of each buffer."""
        counts = [_num_batches(self.rows(index), self.batch_size) for index in range(len(self.buffers))]
        counts = [len(self._batches(index)[1]) if count is None else count for index, count in enumerate(counts)]
        return np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, index: int) -> SequenceBatch:
        return cut_rows(self.view.train.values, *self._chosen(index))

    def share(self, index: int, rank: int, size: int) -> SequenceBatch | None:
        """Every ``size``-th row of a batch, and of the others the targets alone."""
        return share_rows(self.view.train.values, *self._chosen(index), rank, size)

    def _chosen(self, index: int) -> tuple[TrainingRows, np.ndarray]:
        """The rows of the buffer that a batch is in, and which of them it has."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        buffer = int(np.searchsorted(self.begins, index, side="right")) - 1
        rows, batches = self._batches(buffer)
        return rows, batches[index - int(self.begins[buffer])]

    def rows(self, buffer: int) -> TrainingRows:
        """The training rows of a buffer, by the places of the whole data."""
        parts = [self._rows_of_block(int(block)) for block in self.buffers[buffer]]
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("users", "starts", "stops", "first_scored")
        }
        return TrainingRows(**joined, shift=parts[0].shift)

    def _rows_of_block(self, block: int) -> TrainingRows:
        begin, end = int(self.edges[block]), int(self.edges[block + 1])
        train = self.view.train
        nothing = Ragged(train.values[:0], np.zeros(end - begin + 1, dtype=np.int64))
        rows = SequencesView(train.rows(begin, end), nothing, nothing, self.view.num_items).training_rows(self.model)
        first = int(train.offsets[begin])
        return replace(rows, users=rows.users + begin, starts=rows.starts + first, stops=rows.stops + first)

    def _batches(self, buffer: int) -> tuple[TrainingRows, list[np.ndarray]]:
        planned = self._planned.get(buffer)
        if planned is None:
            rows = self.rows(buffer)
            generator = np.random.default_rng([self.seed, self.epoch, buffer + 1])
            planned = rows, shuffled_batches(rows, self.batch_size, generator)
            while len(self._planned) >= _KEPT:
                self._planned.pop(next(iter(self._planned)))
            self._planned[buffer] = planned
        return planned


class LargeSequences(SequencesView):
    """Sequences on disk. ``content`` names them for checkpoints, since hashing them takes a pass over the disk."""

    def __init__(
        self, train: Ragged, val: Ragged, test: Ragged, num_items: int, *, content: str, shuffling: Shuffling
    ) -> None:
        super().__init__(train, val, test, num_items)
        self.content = content
        self.shuffling = shuffling

    @property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.content

    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> BlockPlan:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The shuffled batches of one epoch; ``batch_size`` counts targets (a row of several is never split)."""
        plan = BlockPlan(self, model, batch_size=batch_size, seed=seed, epoch=epoch, shuffling=self.shuffling)
        if not len(plan):
            raise GenrecError(
                "No user has two or more training items, so there is nothing to learn from. "
                "Use more data, or a split that leaves more for training (data.split)."
            )
        return plan


def _blocks(offsets: np.ndarray, values: int) -> np.ndarray:
    """(blocks + 1,) the first user of each block, of about so many values or one user each."""
    wanted = np.arange(0, int(offsets[-1]), values)
    edges = np.searchsorted(offsets, wanted, side="right") - 1
    return np.unique(np.append(edges, len(offsets) - 1))


def _num_batches(rows: TrainingRows, batch_size: int) -> int | None:
    """How many batches such rows make, whatever their order; None where that depends on it."""
    targets = rows.num_targets
    if not len(targets):
        return 0
    if targets.max() > batch_size:
        return None
    totals = np.bincount(rows.lengths, weights=targets).astype(np.int64)
    return int(-(-totals // batch_size).sum())
