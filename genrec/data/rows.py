"""The rows of a table as arrays, and the batches that models of rows learn from.

M rows, F fields, T tasks, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from genrec.artifacts import fingerprint
from genrec.contracts import IGNORE, TEST, TRAIN, VAL, Plan, RowBatch
from genrec.data.row_splits import IN_TEST, IN_TRAIN, IN_VAL
from genrec.features import FeatureSpec

ALL = "all"
BLOCK = 4096  # neighbouring training rows that stay together when a table on disk is shuffled
GROUP = 64  # blocks whose rows are then shuffled among each other


@dataclass(frozen=True)
class Lists:
    """``values[offsets[i] : offsets[i + 1]]`` are the ids of row i: ``values`` int32, ``offsets`` (M + 1,) int64."""

    values: np.ndarray
    offsets: np.ndarray

    def width(self, rows: np.ndarray) -> int:
        """The length of the longest of the given rows, at least 1."""
        return max(int((self.offsets[rows + 1] - self.offsets[rows]).max(initial=0)), 1)

    def padded(self, rows: np.ndarray, width: int | None = None) -> np.ndarray:
        """(B, L) int32 ids of the given rows, ``IGNORE`` behind the last; L is ``width``, or that of the longest."""
        begin = self.offsets[rows]
        lengths = self.offsets[rows + 1] - begin
        place = np.arange(self.width(rows) if width is None else width)
        there = place < lengths[:, None]
        out = np.full(there.shape, IGNORE, dtype=np.int32)
        out[there] = self.values[(begin[:, None] + place)[there]]
        return out


@dataclass(frozen=True)
class Rows:
    """``dense`` (M, F) float32, ``sparse`` (M, F) int32, ``sequences`` one ``Lists`` per field, ``labels`` (M, T)
    float32, ``groups`` (M,) int64 or None.

    ``mapped``: the arrays are files, of which only what is asked for is read.
    """

    dense: np.ndarray
    sparse: np.ndarray
    sequences: tuple[Lists, ...]
    labels: np.ndarray
    groups: np.ndarray | None = None
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> RowBatch:
        """The given rows (B,), in the given order."""
        return RowBatch(
            dense=torch.from_numpy(self.dense.take(rows, axis=0)),
            sparse=torch.from_numpy(self.sparse.take(rows, axis=0)),
            sequences=tuple(torch.from_numpy(field.padded(rows)) for field in self.sequences),
            labels=torch.from_numpy(self.labels.take(rows, axis=0)),
            groups=None if self.groups is None else torch.from_numpy(self.groups.take(rows)),
        )

    def share(self, rows: np.ndarray, rank: int, size: int) -> RowBatch | None:
        """Every ``size``-th of the given rows, as ``take`` of all of them would have them; None where there is none."""
        own = rows[rank::size]
        if not len(own):
            return None
        labels = torch.from_numpy(self.labels.take(rows, axis=0))
        return replace(
            self.take(own),
            sequences=tuple(torch.from_numpy(field.padded(own, field.width(rows))) for field in self.sequences),
            known=(~labels.isnan()).float().mean(dim=0),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Depends on what the arrays hold."""
        return fingerprint("rows", *(array for array in self.arrays().values()))

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name."""
        found = {"dense": self.dense, "sparse": self.sparse, "labels": self.labels}
        for place, field in enumerate(self.sequences):
            found.update({f"values_{place}": field.values, f"offsets_{place}": field.offsets})
        return found if self.groups is None else {**found, "groups": self.groups}


@dataclass(frozen=True)
class RowBatches:
    """Batches of the given rows, in the given order; usable as a plan (``batches[i]``) and as an iterable."""

    rows: Rows
    order: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> RowBatch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.rows.take(self._chosen(index))

    def share(self, index: int, rank: int, size: int) -> RowBatch | None:
        """Every ``size``-th row of a batch."""
        return self.rows.share(self._chosen(index), rank, size)

    def _chosen(self, index: int) -> np.ndarray:
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]

    def __iter__(self) -> Iterator[RowBatch]:
        return (self[index] for index in range(len(self)))


class BlockPlan:
    """Batches of a table on disk: blocks of neighbouring rows in random order, their rows shuffled in groups of blocks.

    A batch is drawn from ``group`` blocks of ``block`` rows, so that little more than these is read at a time, and
    memory does not grow with the table.
    """

    def __init__(
        self,
        rows: Rows,
        order: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        block: int = BLOCK,
        group: int = GROUP,
    ) -> None:
        self.rows = rows
        self.order = order
        self.batch_size = batch_size
        self.key = (seed, epoch)
        self.block = block
        self.group = group
        self.blocks = np.random.default_rng(self.key).permutation(-(-len(order) // block))
        sizes = np.minimum((self.blocks + 1) * block, len(order)) - self.blocks * block
        self.ends = np.cumsum([part.sum() for part in np.split(sizes, range(group, len(sizes), group))])
        self._shuffled: tuple[int, np.ndarray] = (-1, order[:0])

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> RowBatch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.rows.take(self._chosen(index))

    def share(self, index: int, rank: int, size: int) -> RowBatch | None:
        """Every ``size``-th row of a batch."""
        return self.rows.share(self._chosen(index), rank, size)

    def _chosen(self, index: int) -> np.ndarray:
        begin, end = index * self.batch_size, min((index + 1) * self.batch_size, len(self.order))
        found = []
        while begin < end:
            number = int(np.searchsorted(self.ends, begin, side="right"))
            first = int(self.ends[number - 1]) if number else 0
            last = min(end, int(self.ends[number]))
            found.append(self._group(number)[begin - first : last - first])
            begin = last
        return np.concatenate(found)

    def _group(self, number: int) -> np.ndarray:
        """The rows of a group of blocks in their order; the last one asked for is remembered."""
        if self._shuffled[0] != number:
            blocks = self.blocks[number * self.group : (number + 1) * self.group]
            members = np.concatenate([self.order[i * self.block : (i + 1) * self.block] for i in blocks])
            self._shuffled = (number, np.random.default_rng([*self.key, number]).permutation(members))
        return self._shuffled[1]


class RowsView:
    """The rows of a table divided into train, val and test; part "all" is every row. ``parts`` (M,) as a split gives
    them; ``fingerprint`` that of rows and parts where it is known already."""

    def __init__(self, rows: Rows, features: FeatureSpec, parts: np.ndarray, *, content: str | None = None) -> None:
        self.rows = rows
        self.features = features
        self.parts = parts
        self._content = content

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("rows view", self._content or self.rows.fingerprint, self.parts, repr(self.features))

    @cached_property
    def _members(self) -> dict[str, np.ndarray]:
        narrow = np.int32 if len(self.rows) < 2**31 - 1 else np.int64
        found = {name: np.flatnonzero(self.parts == part) for name, part in _PARTS.items()}
        return {name: members.astype(narrow) for name, members in found.items()}

    def rows_of(self, part: str) -> np.ndarray:
        """The rows of ``part`` ("train", "val", "test" or "all") in stored order."""
        if part == ALL:
            return np.arange(len(self.rows))
        if part not in _PARTS:
            raise ValueError(f"part must be one of {[*_PARTS, ALL]}, got {part!r}")
        return self._members[part]

    def num_rows(self, part: str) -> int:
        return len(self.rows) if part == ALL else len(self.rows_of(part))

    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> Plan:
        """The training rows in an order that is a pure function of ``seed`` and ``epoch``."""
        train = self.rows_of(TRAIN)
        if self.rows.mapped:
            return BlockPlan(self.rows, train, batch_size, seed=seed, epoch=epoch)
        return RowBatches(self.rows, np.random.default_rng([seed, epoch]).permutation(train), batch_size)

    def eval_batches(self, part: str, *, batch_size: int) -> RowBatches:
        """The rows of ``part`` in stored order."""
        return RowBatches(self.rows, self.rows_of(part), batch_size)

    def training_rows(self) -> RowBatch:
        """All rows that are trained on, as one batch."""
        return self.rows.take(self.rows_of(TRAIN))


_PARTS = {TRAIN: IN_TRAIN, VAL: IN_VAL, TEST: IN_TEST}
