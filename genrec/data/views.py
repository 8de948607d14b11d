"""The forms in which data sets are consumed, besides sequences: items with vectors, and the user x item matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genrec.artifacts import fingerprint
from genrec.contracts import TEST, TRAIN, VAL, GenrecError, ItemBatch
from genrec.data.ragged import Ragged

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ALL = "all"


@dataclass(frozen=True)
class ItemBatches:
    """Batches of the given items, in the given order; usable as a plan (``batches[i]``) and as an iterable."""

    vectors: np.ndarray
    order: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> ItemBatch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._cut(self.order[index * self.batch_size : (index + 1) * self.batch_size])

    def share(self, index: int, rank: int, size: int) -> ItemBatch | None:
        """Every ``size``-th item of a batch."""
        own = self.order[index * self.batch_size : (index + 1) * self.batch_size][rank::size]
        return self._cut(own) if len(own) else None

    def _cut(self, chosen: np.ndarray) -> ItemBatch:
        return ItemBatch(items=torch.from_numpy(chosen), vectors=torch.from_numpy(self.vectors[chosen]))

    def __iter__(self) -> Iterator[ItemBatch]:
        return (self[index] for index in range(len(self)))


class ItemsView:
    """Items with their vectors (N, D) float32, divided at random into train, val and test; part "all" is every item.

    The division serves to watch reconstruction on items not trained on; semantic IDs are always made for all items.
    """

    def __init__(self, vectors: np.ndarray, *, val_ratio: float = 0.1, test_ratio: float = 0.1, seed: int = 42) -> None:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors):
            raise GenrecError(f"Item vectors must have shape (items, width), got {vectors.shape}.")
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors)).any(axis=1).sum())
            raise GenrecError(f"{bad} of {len(vectors)} item vectors hold NaN or infinity; encode the items again.")
        if val_ratio < 0 or test_ratio < 0 or val_ratio + test_ratio >= 1:
            raise GenrecError(f"val_ratio + test_ratio must be below 1, got {val_ratio} + {test_ratio}.")
        self.vectors = vectors
        order = np.random.default_rng([seed, 11]).permutation(len(vectors))
        num_val, num_test = int(len(vectors) * val_ratio), int(len(vectors) * test_ratio)
        self.parts = {
            VAL: np.sort(order[:num_val]),
            TEST: np.sort(order[num_val : num_val + num_test]),
            TRAIN: np.sort(order[num_val + num_test :]),
            ALL: np.arange(len(vectors)),
        }

    @property
    def num_items(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("items", self.vectors, self.parts[TRAIN], self.parts[VAL], self.parts[TEST])

    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> ItemBatches:
        """The training items in an order that is a pure function of ``seed`` and ``epoch``."""
        order = np.random.default_rng([seed, epoch]).permutation(self.parts[TRAIN])
        return ItemBatches(self.vectors, order, batch_size)

    def eval_batches(self, part: str, *, batch_size: int) -> ItemBatches:
        """The items of ``part`` ("train", "val", "test" or "all") in order of their index."""
        if part not in self.parts:
            raise ValueError(f"part must be one of {sorted(self.parts)}, got {part!r}")
        return ItemBatches(self.vectors, self.parts[part], batch_size)


class MatrixView:
    """The user x item matrix of the *training* part: ``matrix`` (U, N) CSR float32, entry = number of interactions."""

    def __init__(self, train: Ragged, num_items: int) -> None:
        self.train = train
        self.num_items = num_items

    @cached_property
    def matrix(self) -> csr_matrix:
        from scipy.sparse import csr_matrix

        ones = np.ones(len(self.train.values), dtype=np.float32)
        shape = (len(self.train), self.num_items)
        matrix = csr_matrix((ones, self.train.values.copy(), self.train.offsets.copy()), shape=shape)
        matrix.sum_duplicates()
        return matrix

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("matrix", self.num_items, self.train.values, self.train.offsets)
