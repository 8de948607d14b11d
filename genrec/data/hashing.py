"""Hashes that are equal in every process and on every machine: of rows, of integers and of strings."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Integers (M,) mixed into uint64 (Steele et al., OOPSLA 2014): the output of the generator whose state is each."""
    mixed = np.asarray(values).astype(np.int64, copy=False).view(np.uint64) + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def draws(seed: int, rows: np.ndarray) -> np.ndarray:
    """A random uint64 for each row number (M,), a pure function of ``seed`` and the number."""
    key = splitmix64(np.array([seed], dtype=np.int64))
    return splitmix64((key + rows.astype(np.uint64) * _GAMMA).view(np.int64))


def uniforms(seed: int, rows: np.ndarray) -> np.ndarray:
    """The same as float64 in [0, 1)."""
    return (draws(seed, rows) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hashes(ids: pl.Series) -> np.ndarray:
    """uint64 hashes (M,) of int64 or string ids; those of missing ones mean nothing."""
    if ids.dtype == pl.Int64:
        return splitmix64(ids.fill_null(0).to_numpy())
    unique = ids.unique()
    found = [int.from_bytes(_digest(value), "little") for value in unique.to_list()]
    known = pl.DataFrame({"id": unique, "hash": pl.Series(found, dtype=pl.UInt64)})
    return (
        ids.to_frame("id").join(known, on="id", how="left", nulls_equal=True, maintain_order="left")["hash"].to_numpy()
    )


def _digest(value: str | None) -> bytes:
    return hashlib.blake2b((value or "").encode("utf-8"), digest_size=8).digest()
