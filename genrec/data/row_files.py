"""Transformed rows kept piece by piece: in memory, or in files that are mapped afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from genrec.artifacts import fingerprint
from genrec.contracts import GenrecError
from genrec.data.rows import Lists, Rows


class _Growing:
    """One array that grows along its first axis, in a list of pieces or in an .npy file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        self.length = 0
        self._pieces: list[np.ndarray] = []
        self._file: BinaryIO | None = None

    def append(self, piece: np.ndarray) -> None:
        piece = np.ascontiguousarray(piece)
        self.digest.update(piece.data.cast("B") if piece.size else b"")
        self.length += len(piece)
        if self.path is None:
            self._pieces.append(piece)
            return
        if self._file is None:
            self._file = open(self.path, "w+b")  # noqa: SIM115 (closed by finish)
            self._write_header(piece)
        self._file.write(piece.tobytes())
        self._pieces = [piece[:0]]

    def _write_header(self, piece: np.ndarray) -> None:
        """The header of an .npy file; NumPy leaves room in it for the first axis to grow."""
        assert self._file is not None
        header = {"descr": piece.dtype.str, "fortran_order": False, "shape": (self.length, *piece.shape[1:])}
        np.lib.format.write_array_header_1_0(self._file, header)

    def finish(self) -> np.ndarray:
        if self._file is None or self.path is None:
            return np.concatenate(self._pieces)
        self._file.seek(0)
        self._write_header(self._pieces[0])
        self._file.close()
        return _mapped(self.path)


class RowWriter:
    """Takes rows chunk by chunk; ``folder`` is where they are kept in files, None keeps them in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._arrays: dict[str, _Growing] = {}
        self._num_values: list[int] = []
        self._has_groups = False

    def add(self, rows: Rows) -> None:
        first = not self._arrays
        self._has_groups = rows.groups is not None
        if first:
            self._num_values = [0] * len(rows.sequences)
        for name, array in rows.arrays().items():
            if name.startswith("offsets_"):  # of this chunk: behind the values of those before it
                place = int(name.removeprefix("offsets_"))
                array = (array if first else array[1:]) + self._num_values[place]
            self._growing(name).append(array)
        for place, field in enumerate(rows.sequences):
            self._num_values[place] += len(field.values)

    def _growing(self, name: str) -> _Growing:
        if name not in self._arrays:
            self._arrays[name] = _Growing(None if self.folder is None else self.folder / f"{name}.npy")
        return self._arrays[name]

    def finish(self) -> tuple[Rows, str]:
        """All rows, and a fingerprint of what they hold that does not depend on the chunks."""
        content = fingerprint("rows", {name: array.digest.hexdigest() for name, array in self._arrays.items()})
        arrays = {name: array.finish() for name, array in self._arrays.items()}
        return _rows(arrays.__getitem__, len(self._num_values), self._has_groups, self.folder is not None), content


def mapped_rows(folder: Path, num_sequences: int, has_groups: bool) -> Rows:
    """The rows that a writer left in ``folder``."""
    return _rows(lambda name: _mapped(folder / f"{name}.npy"), num_sequences, has_groups, True)


def _rows(array: Callable[[str], np.ndarray], num_sequences: int, has_groups: bool, mapped: bool) -> Rows:
    lists: Sequence[Lists] = [Lists(array(f"values_{i}"), array(f"offsets_{i}")) for i in range(num_sequences)]
    groups = array("groups") if has_groups else None
    return Rows(array("dense"), array("sparse"), tuple(lists), array("labels"), groups, mapped=mapped)


def _mapped(path: Path) -> np.ndarray:
    """An .npy file as an array of which only what is asked for is read; one without entries needs no map."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise GenrecError(f"{path} is gone. Delete {path.parent}, so that it is made again.") from None
    except ValueError:  # a map of nothing
        array = np.load(path, allow_pickle=False)
    return array
