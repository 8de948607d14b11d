"""Rows of different length in two flat arrays (the CSR layout)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_BLOCK = 1 << 20  # values, or rows, that are looked at together where an array may be larger than memory


@dataclass(frozen=True)
class Ragged:
    """``values[offsets[i] : offsets[i + 1]]`` is row i. ``values`` (M,) int64, ``offsets`` (rows + 1,) int64.

    Of data on disk both are memory-mapped, and ``values`` int32.
    """

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
        rows = np.asarray(rows)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged.from_lengths(self.values[np.repeat(self.offsets[rows], lengths) + within], lengths)

    def last(self, count: int) -> Ragged:
        """The last ``count`` values of every row (all where a row is shorter)."""
        lengths = np.minimum(self.lengths, count)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Ragged.from_lengths(self.values[np.repeat(self.offsets[1:] - lengths, lengths) + within], lengths)

    def counts(self, size: int) -> np.ndarray:
        """(size,) how often each of the values 0 to ``size`` - 1 occurs."""
        total = np.zeros(size, dtype=np.int64)
        for begin in range(0, len(self.values), _BLOCK):
            np.add.at(total, self.values[begin : begin + _BLOCK], 1)  # touches no other place of a large catalogue
        return total

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """(rows,) the sum of ``weights`` (size,) over the values of each row."""
        total = np.zeros(len(self))
        for begin in range(0, len(self), _BLOCK):
            part = self.rows(begin, min(begin + _BLOCK, len(self)))
            total[begin : begin + _BLOCK] = np.bincount(part.row_of_value, weights[part.values], minlength=len(part))
        return total

    def rows(self, begin: int, end: int) -> Ragged:
        """Rows ``begin`` up to ``end``, without a copy of their values."""
        offsets = self.offsets[begin : end + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

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


class Joined(Ragged):
    """The rows of several ``Ragged`` end to end: row i of the first, then row i of the second, and so on.

    Rows that are taken are put together then; all of them only where somebody asks for ``values`` and ``offsets``.
    """

    parts: tuple[Ragged, ...]

    def __init__(self, parts: Sequence[Ragged]) -> None:
        object.__setattr__(self, "parts", tuple(parts))

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, row: int) -> np.ndarray:
        return np.concatenate([part[row] for part in self.parts])

    @property
    def lengths(self) -> np.ndarray:
        return np.sum([part.lengths for part in self.parts], axis=0)

    @cached_property
    def whole(self) -> Ragged:
        """The same as arrays."""
        return _interleaved(self.parts)

    @property
    def values(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.whole.values

    @property
    def offsets(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.whole.offsets

    def take(self, rows: np.ndarray) -> Ragged:
        return _interleaved([part.take(rows) for part in self.parts])

    def counts(self, size: int) -> np.ndarray:
        return np.sum([part.counts(size) for part in self.parts], axis=0)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        return np.sum([part.sums(weights) for part in self.parts], axis=0)


def _interleaved(parts: Sequence[Ragged]) -> Ragged:
    rows = np.concatenate([part.row_of_value for part in parts])
    order = np.argsort(rows, kind="stable")
    values = np.concatenate([part.values for part in parts])[order]
    return Ragged.from_lengths(values, np.sum([part.lengths for part in parts], axis=0))
