"""A table written piece by piece into one file, which appears whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from genrec.contracts import GenrecError
from genrec.disk import refusals
from genrec.remote.addresses import is_remote, shown
from genrec.remote.uploads import check_writable, written
from genrec.scratch import Scratch

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".parquet", ".csv", ".jsonl")


def output_of(text: str) -> Path | str:
    """Where a table is to be written: a path, or the address of a remote file as it is."""
    return text if is_remote(text) else Path(text)


def check_output(output: Path | str) -> None:
    """Raises ``GenrecError`` where no table can be written, before anything is computed."""
    if _kind(output) not in SUFFIXES:
        raise GenrecError(f"output={shown(str(output))}: the name must end in {', '.join(SUFFIXES)}.")
    check_writable(output)


def _kind(output: Path | str) -> str:
    return PurePosixPath(output).suffix


class TableWriter:
    """The file at ``path`` (.parquet, .csv or .jsonl), a path or an address, of which only a piece is in memory.

    ``add`` pieces of the same columns; the end of the ``with`` block puts the file in place, and an error, or
    ``discard``, leaves nothing behind. What a process that was killed has left, the next one removes.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.num_rows = 0
        self._folder: Scratch | None = None
        self._pieces: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._folder is not None:
                self._finish(self._folder)
        finally:
            self.discard()

    def add(self, frame: pl.DataFrame) -> None:
        """Appends rows."""
        if self._folder is None:
            self._folder = _place_beside(self.path)
        if _kind(self.path) == ".parquet":
            self._pieces.append(self._folder.path / f"{len(self._pieces):06d}.parquet")
            frame.write_parquet(self._pieces[-1])
        else:
            self._append(self._folder.path / "whole", frame)
        self.num_rows += frame.height

    def discard(self) -> None:
        """Removes what is not in place."""
        if self._folder is not None:
            self._folder.remove()

    def _append(self, path: Path, frame: pl.DataFrame) -> None:
        first = not self._pieces
        self._pieces = [path]
        with open(path, "ab") as stream:
            if _kind(self.path) == ".csv":
                frame.write_csv(stream, include_header=first)
            else:
                frame.write_ndjson(stream)

    def _finish(self, folder: Scratch) -> None:
        import polars as pl

        with written(self.path) as unfinished:
            folder.goes_with(unfinished)
            if len(self._pieces) == 1:
                shutil.move(self._pieces[0], unfinished)
            else:
                pl.scan_parquet(self._pieces).sink_parquet(unfinished, maintain_order=True)


def _place_beside(path: Path | str) -> Scratch:
    """A new folder for pieces: on the disk of the file where that is here, so that it is not copied at the end."""
    if is_remote(path):
        return Scratch("genrec-")
    place = Path(path)
    with refusals(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        return Scratch(f".{place.name}.", place.parent)
