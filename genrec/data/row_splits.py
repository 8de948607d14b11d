"""Which rows of a table are trained on, validated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import polars as pl

from genrec.annotations import Natural, Rate, Share, check_fields
from genrec.contracts import GenrecError
from genrec.data.columns import as_text
from genrec.data.hashing import uniforms

IN_TRAIN, IN_VAL, IN_TEST, LEFT_OUT = 0, 1, 2, 3  # what ``row_parts`` says of a row

Value = str | int | float | bool


class SplitTable(Protocol):
    """What a split may ask of a table."""

    @property
    def num_rows(self) -> int: ...
    def column(self, name: str, key: str) -> pl.Series: ...
    def timestamps(self) -> np.ndarray: ...


class RowSplit(Protocol):
    """Divides a table: the part of every row, (M,) uint8."""

    def row_parts(self, table: SplitTable) -> np.ndarray: ...


class _OfTables:
    def split(self, log: Any) -> NoReturn:
        raise GenrecError(
            f"{type(self).__name__} divides rows of a table, and these data are interactions of users. Use "
            "split=leave_one_out, split=ratio_per_user or split=global_time."
        )


@dataclass(frozen=True, kw_only=True)
class RandomRows(_OfTables):
    """Each row falls into a part at random: a pure function of ``seed`` and the row's number."""

    train_ratio: Share = 0.8
    val_ratio: Share = 0.1
    test_ratio: Share = 0.1
    seed: Natural = 42

    def __post_init__(self) -> None:
        check_fields(self, "split")
        ratios = (self.train_ratio, self.val_ratio, self.test_ratio)
        if self.train_ratio <= 0 or abs(sum(ratios) - 1) > 1e-6:
            raise GenrecError(
                "split: train_ratio, val_ratio and test_ratio are shares that add up to 1 (train above 0); "
                f"got {ratios}."
            )

    def row_parts(self, table: SplitTable) -> np.ndarray:
        draw = uniforms(self.seed, np.arange(table.num_rows))
        held_out = self.val_ratio + self.test_ratio
        parts = np.full(table.num_rows, IN_TRAIN, dtype=np.uint8)
        parts[draw < held_out] = IN_VAL
        parts[draw < self.test_ratio] = IN_TEST
        return parts


@dataclass(frozen=True, kw_only=True)
class ByColumn(_OfTables):
    """A column says the part of each row: values of ``train``, ``val`` and ``test`` are compared as text.

    ``train`` null takes all rows that the others do not; ``val`` null takes ``val_ratio`` of the training rows at
    random, as ``RandomRows`` would. Rows with other values are left out.
    """

    column: str = "split"
    train: list[Value] | None = None
    val: list[Value] | None = None
    test: list[Value] = ("test",)  # pyright: ignore[reportAssignmentType]
    val_ratio: Rate = 0.1
    seed: Natural = 42

    def __post_init__(self) -> None:
        check_fields(self, "split")
        given = [value for values in (self.train, self.val, self.test) for value in _texts(values or ())]
        if len(set(given)) < len(given):
            raise GenrecError("split: each value of the column belongs to one of train, val and test.")

    def row_parts(self, table: SplitTable) -> np.ndarray:
        values = as_text(table.column(self.column, "split.column"))
        rest = IN_TRAIN if self.train is None else LEFT_OUT
        parts = np.full(table.num_rows, rest, dtype=np.uint8)
        for part, wanted in ((IN_TRAIN, self.train), (IN_VAL, self.val), (IN_TEST, self.test)):
            if wanted:
                parts[values.is_in(_texts(wanted)).fill_null(False).to_numpy()] = part
        for name, part, wanted in (
            ("train", IN_TRAIN, self.train),
            ("val", IN_VAL, self.val),
            ("test", IN_TEST, self.test),
        ):
            if wanted and not (parts == part).any():
                raise GenrecError(f"split.{name}={_listed(wanted)}: no row of {self.column} has it. {_found(values)}")
        if self.val is None:
            draw = uniforms(self.seed, np.arange(table.num_rows))
            parts[(parts == IN_TRAIN) & (draw < self.val_ratio)] = IN_VAL
        return parts


def _texts(values: Sequence[Value]) -> list[str]:
    return as_text(pl.Series([str(value) for value in values], dtype=pl.String)).to_list()


def _listed(values: Sequence[Value]) -> str:
    return "[" + ",".join(_texts(values)) + "]"


def _found(values: pl.Series) -> str:
    counts = values.value_counts(sort=True).head(10).rows()
    return "It holds " + ", ".join(f"{value} ({count:,} rows)" for value, count in counts) + "."


def check_parts(parts: np.ndarray, split: RowSplit) -> None:
    """Raises where a part of a split holds no row; parts whose ratio is 0 may be empty."""
    for part, name in ((IN_TRAIN, "train"), (IN_VAL, "val"), (IN_TEST, "test")):
        if getattr(split, f"{name}_ratio", 1) and not (parts == part).any():
            raise GenrecError(
                f"The split leaves no {name} rows among {len(parts):,}. Use other boundaries or values, or "
                "split=random_rows."
            )
