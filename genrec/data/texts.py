"""A text for every item, read from a column when it is asked for: a catalogue of millions makes no Python strings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import polars as pl

_AT_ONCE = 1 << 14


class Texts(Sequence[str]):
    """The texts of ``column`` by item; where it has none, or an empty one, what ``otherwise`` says of that item.

    Equal to any sequence of the same strings.
    """

    def __init__(self, column: pl.Series | None, length: int, otherwise: Callable[[int], str]) -> None:
        self.column = column
        self.length = length
        self.otherwise = otherwise

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            numbers = range(self.length)[index]
            found = [None] * len(numbers) if self.column is None else self.column[index].to_list()
            return [text or self.otherwise(number) for number, text in zip(numbers, found, strict=True)]
        number = range(self.length)[index]  # an IndexError beyond the last, and from the end below 0
        text = None if self.column is None else self.column[number]
        return text or self.otherwise(number)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, self.length, _AT_ONCE):
            yield from self[begin : begin + _AT_ONCE]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]
