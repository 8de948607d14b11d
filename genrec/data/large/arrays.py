"""Flat arrays on disk: written from first to last, read as memory maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from genrec.artifacts import atomic_path, reason_of
from genrec.contracts import GenrecError

BLOCK = 1 << 20
_LONGEST_ID = 512


class ArrayFile:
    """An array of known length that is written block by block."""

    def __init__(self, stream: IO[bytes], length: int, dtype: np.dtype) -> None:
        self.stream, self.length, self.dtype = stream, length, dtype
        self.written = 0
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(stream, header)

    def write(self, block: np.ndarray) -> None:
        """Adds a block (n,)."""
        self.written += len(block)
        self.stream.write(np.ascontiguousarray(block, dtype=self.dtype).reshape(-1).view(np.uint8).data)


@contextmanager
def array_file(path: Path, length: int, dtype: np.dtype | type) -> Iterator[ArrayFile]:
    """Opens an ``ArrayFile`` that appears under ``path`` when all of it has been written."""
    with atomic_path(path) as unfinished:
        with open(unfinished, "wb") as stream:
            array = ArrayFile(stream, length, np.dtype(dtype))
            yield array
        if array.written != length:
            raise RuntimeError(f"{array.written} of {length} values of {path} were written")


def save_array(path: Path, values: np.ndarray) -> None:
    """Writes an array that is in memory."""
    with array_file(path, len(values), values.dtype) as file:
        file.write(values)


def save_ids(path: Path, ids: pl.Series) -> None:
    """Writes ids as int64, or as strings of one width, without ever holding them as Python objects at once."""
    if ids.dtype.is_integer():
        save_array(path, ids.cast(pl.Int64).to_numpy())
        return
    width = max(1, int(ids.str.len_chars().max() or 1))  # pyright: ignore[reportArgumentType]
    if width > _LONGEST_ID:
        longest = ids.filter(ids.str.len_chars() == width)[0]
        raise GenrecError(
            f"An id of {ids.name} has {width:,} characters ({longest[:40]}...); {_LONGEST_ID} are the most, since all "
            "take as much room as the longest. Correct data.source.columns, or shorten it."
        )
    with array_file(path, len(ids), np.dtype(f"<U{width}")) as file:
        for begin in range(0, len(ids), BLOCK):
            file.write(np.array(ids[begin : begin + BLOCK].to_list(), dtype=np.str_))


def open_array(path: Path) -> np.ndarray:
    """The array of a file, of which the system reads what is touched; a missing or torn one is a GenrecError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "empty" not in str(error):  # nothing can be mapped of an array without values
            raise GenrecError(
                f"{path} is torn ({reason_of(error)}). Remove its folder, and it is made again."
            ) from None
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise GenrecError(f"{path} cannot be read ({error.strerror or error}). Remove its folder.") from None
    return array
