"""Ids of sparse fields: a vocabulary of training values, buckets of a hash, or quantiles of a number.

Id 0 is ``UNKNOWN`` in all three: a value that training never saw, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from genrec.annotations import Count
from genrec.data.hashing import hashes
from genrec.features import UNKNOWN


class Ids(Protocol):
    """Gives raw values their ids, 0..size - 1."""

    @property
    def size(self) -> int: ...
    def encode(self, values: pl.Series) -> np.ndarray: ...
    def state(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Vocabulary:
    """``values`` (int64 or strings) have the ids 1, 2 ... in their order."""

    values: pl.Series

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids (M,) int32 of values as ``genrec.data.columns.as_ids`` gives them."""
        wanted = _of_type(values, self.values.dtype)
        known = pl.DataFrame({"value": self.values, "id": np.arange(1, self.size, dtype=np.int32)})
        found = wanted.to_frame("value").join(known, on="value", how="left", maintain_order="left")["id"]
        return found.fill_null(UNKNOWN).to_numpy().astype(np.int32)

    def state(self) -> dict[str, Any]:
        return {"kind": "vocabulary", "integers": self.values.dtype == pl.Int64, "values": self.values.to_list()}


@dataclass(frozen=True)
class HashBuckets:
    """Ids 1..``num_buckets`` by a hash that is equal everywhere; needs no training and knows every value."""

    num_buckets: Count
    integers: bool

    @property
    def size(self) -> int:
        return self.num_buckets + 1

    def encode(self, values: pl.Series) -> np.ndarray:
        wanted = _of_type(values, pl.Int64 if self.integers else pl.String)
        found = (hashes(wanted) % np.uint64(self.num_buckets)).astype(np.int64) + 1
        return np.where(wanted.is_null().to_numpy(), UNKNOWN, found).astype(np.int32)

    def state(self) -> dict[str, Any]:
        return {"kind": "hash", "num_buckets": self.num_buckets, "integers": self.integers}


@dataclass(frozen=True)
class QuantileBuckets:
    """Ids of numbers: 1 below the first of ``edges`` (E,), one more from each edge on."""

    edges: np.ndarray

    @property
    def size(self) -> int:
        return len(self.edges) + 2

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Ids (M,) int32 of float64 numbers (M,)."""
        found = np.searchsorted(self.edges, values, side="right") + 1
        return np.where(np.isnan(values), UNKNOWN, found).astype(np.int32)

    def state(self) -> dict[str, Any]:
        return {"kind": "quantiles", "edges": self.edges.tolist()}


def from_state(state: Mapping[str, Any]) -> Vocabulary | HashBuckets | QuantileBuckets:
    """What ``state`` of one of these wrote."""
    if state["kind"] == "hash":
        return HashBuckets(state["num_buckets"], state["integers"])
    if state["kind"] == "quantiles":
        return QuantileBuckets(np.array(state["edges"], dtype=np.float64))
    return Vocabulary(pl.Series("value", state["values"], dtype=pl.Int64 if state["integers"] else pl.String))


def _of_type(values: pl.Series, dtype: Any) -> pl.Series:
    """Values as the training ones were stored; what cannot be one of them is null."""
    return values if values.dtype == dtype else values.cast(dtype, strict=False)


class Counts:
    """How often each value occurs, chunk by chunk; memory is that of the distinct values."""

    def __init__(self) -> None:
        self._merged: pl.DataFrame | None = None
        self._pending: list[pl.DataFrame] = []

    def add(self, values: pl.Series) -> None:
        """Counts values as ``as_ids`` gives them, missing ones left out."""
        self._pending.append(values.drop_nulls().alias("value").value_counts(name="count"))
        merged = 0 if self._merged is None else self._merged.height
        if sum(part.height for part in self._pending) > merged:  # so that the work grows with what was counted only
            self._merge()

    def _merge(self) -> None:
        parts = [part.with_columns(pl.col("count").cast(pl.Int64)) for part in self._pending]
        parts += [] if self._merged is None else [self._merged]
        if len({part["value"].dtype for part in parts}) > 1:  # integers in one part, text in another
            parts = [part.with_columns(pl.col("value").cast(pl.String)) for part in parts]
        self._merged = pl.concat(parts).group_by("value").agg(pl.col("count").sum())
        self._pending = []

    def vocabulary(self, *, min_count: int, max_size: int | None) -> Vocabulary:
        """The frequent values, most frequent first, equally frequent ones in their own order."""
        if self._pending:
            self._merge()
        if self._merged is None:
            return Vocabulary(pl.Series("value", [], dtype=pl.String))
        kept = self._merged.filter(pl.col("count") >= min_count).sort("count", "value", descending=[True, False])
        return Vocabulary((kept if max_size is None else kept.head(max_size))["value"])
