"""Rows of different length in two flat arrays (the CSR layout)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """``values[offsets[i] : offsets[i + 1]]`` is row i. ``values`` (M,) int64, ``offsets`` (rows + 1,) int64."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[int]]) -> Ragged:
        lists = [np.asarray(list(row), dtype=np.int64) for row in rows]
        lengths = np.array([len(row) for row in lists], dtype=np.int64)
        values = np.concatenate(lists) if lists else np.zeros(0, dtype=np.int64)
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(np.asarray(values, dtype=np.int64), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> np.ndarray:
        """The row each value belongs to, (M,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows, in the given order."""
        lengths = self.lengths[rows]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged.from_lengths(self.values[np.repeat(self.offsets[rows], lengths) + within], lengths)

    def last(self, count: int) -> Ragged:
        """The last ``count`` values of every row (all where a row is shorter)."""
        lengths = np.minimum(self.lengths, count)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged.from_lengths(self.values[np.repeat(self.offsets[1:] - lengths, lengths) + within], lengths)

    def between(self, begin: np.ndarray, end: np.ndarray) -> Ragged:
        """The values of each row from place ``begin`` up to ``end``, (rows,) each, as far as the row has them."""
        place = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        row = self.row_of_value
        kept = (place >= begin[row]) & (place < end[row])
        return Ragged.from_lengths(self.values[kept], np.bincount(row[kept], minlength=len(self)))

    def padded(self, fill: int, width: int | None = None) -> np.ndarray:
        """(rows, width) filled from the left; ``width`` defaults to the longest row."""
        lengths = self.lengths
        width = int(lengths.max(initial=0)) if width is None else width
        columns = np.arange(width)
        inside = columns[None, :] < lengths[:, None]
        out = np.full((len(self), width), fill, dtype=np.int64)
        out[inside] = self.values
        return out
