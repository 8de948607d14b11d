"""Encoders turn each item of a dataset into one vector: ``encode(dataset) -> (N, D) float32``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

_ROWS_AT_ONCE = 1 << 14


class Encoder(Protocol):
    """Row i of the result belongs to item index i; equal configs and data give equal vectors."""

    def encode(self, dataset: Dataset) -> np.ndarray: ...


def require_texts(dataset: Dataset, encoder: str) -> Sequence[str]:
    """The items' texts, read when they are asked for, or an error that names the way out when the dataset has none."""
    if not dataset.has_text:
        raise GenrecError(
            f"encoder={encoder} reads item text, but data set {dataset.name!r} has no item table with text. "
            "Use encoder=collaborative, which needs interactions only, or encoder=file with vectors of your own."
        )
    return dataset.texts


def checked_vectors(vectors: Any, *, num_items: int, origin: str) -> np.ndarray:
    """(N, D) float32, or an error that says what is wrong with the vectors of ``origin``."""
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu":
        raise GenrecError(f"{origin}: item vectors must be numbers, found dtype {array.dtype}. Store floats.")
    if array.ndim != 2 or array.shape[1] == 0:
        raise GenrecError(f"{origin}: item vectors must be a table of items x dimensions, found shape {array.shape}.")
    if array.shape[0] != num_items:
        raise GenrecError(
            f"{origin}: found {array.shape[0]} rows, but the data set has {num_items} items. Give one row per item in "
            "the order of the item table, or a Parquet or npz file with an item_id column, which is matched by id."
        )
    array = array.astype(np.float32, copy=False)
    broken = broken_rows(array)
    if len(broken):
        raise GenrecError(
            f"{origin}: {len(broken)} rows hold NaN or infinite values, the first is row {broken[0]}. "
            "Compute them again."
        )
    return array


def broken_rows(vectors: np.ndarray) -> np.ndarray:
    """The rows of ``vectors`` (N, D) that hold NaN or infinity, ascending."""
    broken = np.zeros(len(vectors), dtype=bool)
    for begin in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        broken[part] = ~np.isfinite(vectors[part]).all(axis=1)
    return np.flatnonzero(broken)
