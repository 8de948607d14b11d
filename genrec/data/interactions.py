"""The canonical interaction log: who met which item when, as flat arrays over contiguous internal indices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from genrec.artifacts import JsonText, fingerprint

if TYPE_CHECKING:
    from genrec.graph import Relation

USER_ID, ITEM_ID, TIMESTAMP = "user_id", "item_id", "timestamp"
RATING, LABEL = "rating", "label"
TITLE, TEXT = "title", "text"

_LABELS = {
    "rows_read": "rows read",
    "rows_missing_user": "bad rows dropped: no user id",
    "rows_missing_item": "bad rows dropped: no item id",
    "rows_bad_timestamp": "bad rows dropped: timestamp missing or unreadable",
    "rows_below_min_rating": "rows dropped by min_rating",
    "duplicate_rows": "exact duplicates dropped",
    "rows_filtered": "rows dropped by the minimum counts",
    "users_filtered": "users dropped by the minimum counts",
    "items_filtered": "items dropped by the minimum counts",
    "unknown_items": "items that the item table does not know",
    "rows_of_unknown_items": "rows of such items",
    "duplicate_item_rows": "item-table rows dropped: id given twice",
    "items_missing_id": "item-table rows dropped: no id",
    "unused_items": "items of the table without any interaction",
    "empty_users": "users without any interaction",
    "lines_unreadable": "unreadable lines skipped",
    "values_not_numbers": "values that are not numbers, kept as missing",
}
_TOTALS = ("users", "items", "interactions")
_VALUES_AT_ONCE = 1 << 14
_LARGEST_INTEGER = 2**63 - 1
_BLOCK = 1 << 24  # values that are looked at together


@dataclass
class DataReport:
    """What was found and what was dropped while data was read: ``counts`` by name, and ``notes`` in plain words."""

    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, count: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + int(count)

    def lines(self) -> list[str]:
        """One readable line per non-zero count, then the notes."""
        totals = ", ".join(f"{self.counts[name]:,} {name}" for name in _TOTALS if name in self.counts)
        out = [totals] if totals else []
        for name, label in _LABELS.items():
            if self.counts.get(name):
                out.append(f"{label}: {self.counts[name]:,}")
        return out + self.notes


def is_sorted(values: np.ndarray) -> bool:
    """Whether no value (M,) is smaller than the one before; of a memory map a block is read at a time."""
    blocks = (values[begin : begin + _BLOCK + 1] for begin in range(0, len(values), _BLOCK))
    return not any((block[1:] < block[:-1]).any() for block in blocks)


@dataclass(frozen=True)
class InteractionLog:
    """Every interaction, sorted by user, then time, then stored order.

    ``users`` and ``items`` (M,) int64 internal indices; ``timestamps`` (M,) int64 or float64 in the unit of the source,
    None where it has none (the stored order is the time order); ``user_ids`` (U,) and ``item_ids`` (N,) raw ids, int64
    or strings, exact; ``extras`` further columns (M,), numbers or strings as objects. ``item_table`` and ``user_table``
    have one row per index.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    item_table: pl.DataFrame | None = None
    user_table: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if not is_sorted(self.users):
            raise ValueError("an InteractionLog is sorted by user")
        columns = [self.items, *self.extras.values()]
        columns += [] if self.timestamps is None else [self.timestamps]
        if any(len(column) != len(self.users) for column in columns):
            raise ValueError("the columns of an InteractionLog have equal length")

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that the log has."""
        times = [] if self.timestamps is None else [TIMESTAMP]
        return [USER_ID, ITEM_ID, *times, *self.extras]

    @cached_property
    def fingerprint(self) -> str:
        arrays = [self.users, self.items, self.user_ids, self.item_ids, self.timestamps]
        extras = {name: _hashable(values) for name, values in self.extras.items()}
        return fingerprint("interactions", arrays, extras, _table_content(self.item_table))

    def frame(self) -> pl.DataFrame:
        """The log as a table of raw ids, in stored order."""
        data: dict[str, Any] = {USER_ID: self.user_ids[self.users], ITEM_ID: self.item_ids[self.items]}
        if self.timestamps is not None:
            data[TIMESTAMP] = self.timestamps
        return pl.DataFrame({**data, **self.extras})


@dataclass(frozen=True)
class SourceData:
    """What a source delivers: the cleaned log, the report of the cleaning, and the folder it came from, if any.

    ``relations`` by name tie users and items to other things; they hold nothing of the interactions themselves.
    """

    log: InteractionLog
    report: DataReport
    folder: Path | None = None
    relations: Mapping[str, Relation] = field(default_factory=dict)


def id_array(ids: pl.Series) -> np.ndarray:
    """Ids as int64 or as strings of one width, without Python objects."""
    return ids.to_numpy().copy() if ids.dtype == pl.Int64 else np.array(ids.to_list(), dtype=np.str_)


def column_array(series: pl.Series) -> np.ndarray:
    """A column as int64, float64, or strings as objects, of which one may be as long as a review."""
    kind = series.dtype
    if kind == pl.UInt64 and int(series.cast(pl.UInt64).max() or 0) > _LARGEST_INTEGER:  # pyright: ignore[reportArgumentType]
        series = series.cast(pl.String)
    elif kind == pl.Binary:
        series = series.bin.encode("hex")
    elif kind == pl.Duration:
        series = series.dt.total_microseconds()
    kind = series.dtype
    if kind.is_integer() or kind == pl.Boolean:
        return series.cast(pl.Int64).to_numpy().copy()
    if kind.is_float() or kind.is_decimal():
        return series.cast(pl.Float64).to_numpy().copy()
    return series.cast(pl.String).fill_null("").to_numpy().astype(object)


def encode(values: pl.Series, vocabulary: pl.Series) -> np.ndarray:
    """(M,) int64 position of each value in ``vocabulary`` (unique), -1 where it is not in it."""
    table = pl.DataFrame({"value": vocabulary}).with_row_index("code")
    joined = pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")
    return joined["code"].cast(pl.Int64).fill_null(-1).to_numpy().copy()


def _hashable(values: np.ndarray) -> np.ndarray | JsonText:
    return _as_json(pl.Series(values, dtype=pl.String)) if values.dtype == object else values


def _table_content(table: pl.DataFrame | None) -> dict[str, JsonText] | None:
    """A table in a form that ``fingerprint`` takes: each column as the JSON list of its values."""
    return None if table is None else {name: _as_json(table[name]) for name in table.columns}


def _as_json(column: pl.Series) -> JsonText:
    """The text of ``json.dumps`` for a column, of which a few thousand values exist at a time."""

    def pieces() -> Iterator[str]:
        yield "["
        for begin in range(0, len(column), _VALUES_AT_ONCE):
            yield ", " * (begin > 0) + json.dumps(column[begin : begin + _VALUES_AT_ONCE].to_list(), default=str)[1:-1]
        yield "]"

    return JsonText(pieces())
