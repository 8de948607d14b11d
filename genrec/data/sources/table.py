"""A table of rows in files of your own: CSV, TSV, JSON lines or Parquet, one or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from genrec.annotations import Count, check_arguments
from genrec.contracts import GenrecError
from genrec.data.download import missing_files
from genrec.data.raw_table import CHUNK_ROWS
from genrec.data.remote import DEFAULT_CACHE, table_files
from genrec.data.tables import SUFFIXES, UNREADABLE, checked_times, in_brief, map_columns, read_table, table_suffix
from genrec.remote.addresses import before_pattern, has_magic, is_remote, name_of
from genrec.remote.copies import version_of


class TableSource:
    """The rows of ``path``: a file, a folder of them, a pattern such as day-*.parquet, or a list, one after the other.

    ``columns`` maps our names to the file's; as a list it names the columns of files without a header line.
    ``file_column`` adds a column that holds the name of a row's file ("train" of train.csv.gz). Parquet is read in
    pieces of ``chunk_rows`` rows at most, text and anything gzipped whole. Paths may be addresses of a remote store,
    which ``storage_options`` belong to; copies lie below ``cache_dir``.
    """

    def __init__(
        self,
        *,
        path: str | list[str],
        columns: dict[str, str] | list[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        file_column: str | None = None,
        chunk_rows: Count = CHUNK_ROWS,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        check_arguments(TableSource.__init__, locals(), "data.source")
        self.paths = [path] if isinstance(path, str) else list(path or ())
        if not all(self.paths) or not self.paths:
            raise GenrecError("data.path names no file. Give one, a folder, or a list: data.path=[a.csv,b.csv].")
        self.storage_options = storage_options
        self.cache_dir = cache_dir
        self.columns = columns
        self.delimiter = delimiter
        self.encoding = encoding
        self.file_column = file_column
        self.chunk_rows = chunk_rows

    @property
    def name(self) -> str:
        first = before_pattern(self.paths[0])
        name = name_of(first) if is_remote(first) else Path(first).name
        return name.split(".")[0] or "table"

    @cached_property
    def files(self) -> list[Path]:
        """The files, in the order of their rows; those of a folder by name."""
        found = [file for path in self.paths for file in self._files_of(path)]
        if len(found) == 1 and found[0].is_dir():
            folder = found[0]
            found = sorted(item for item in folder.iterdir() if item.is_file() and table_suffix(item) in SUFFIXES)
            if not found:
                raise missing_files(
                    folder, "a table (" + ", ".join(SUFFIXES) + ", each perhaps with .gz)", download=False
                )
        for path in found:
            if not path.is_file():
                raise missing_files(path, "your table", download=False)
        kinds = {table_suffix(path) for path in found}
        if len(kinds) > 1:
            raise GenrecError(
                f"data.path: files of one kind belong together, and here are {', '.join(sorted(kinds))}. "
                "Name those that are meant: data.path=[a.csv,b.csv]."
            )
        return list(found)

    def _files_of(self, path: str) -> list[Path]:
        """Addresses and patterns as files of this machine; other paths as they are."""
        pattern = has_magic(path) and not Path(path).exists()
        return table_files(path, self.cache_dir, self.storage_options) if pattern or is_remote(path) else [Path(path)]

    @property
    def streams(self) -> bool:
        """Whether rows are read in pieces."""
        return all(path.suffix.lower() == ".parquet" for path in self.files)

    @property
    def text(self) -> bool:
        """Whether numbers come as strings."""
        return table_suffix(self.files[0]) not in (".parquet", ".jsonl", ".ndjson", ".json")

    @property
    def origin(self) -> list[Any]:
        """What tells these files from others without reading all of them."""
        options = [self.columns, self.delimiter, self.encoding, self.file_column, self.chunk_rows]
        return [*options, *map(version_of, self.files)]

    @cached_property
    def num_rows(self) -> int:
        """Number of rows of streamed files, from their metadata."""
        return sum(self._counts)

    @cached_property
    def _counts(self) -> list[int]:
        return [_collected(_scan(path).select(pl.len()), path).item() for path in self.files]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Type of every column of streamed files."""
        heads = [self._named(_collected(_scan(path).head(0), path), path) for path in self.files]
        return dict(self._joined(heads).schema)

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows in their order, in pieces; only the given columns, in no certain order, or all."""
        if not self.streams:
            frames = []
            for path in self.files:
                header = self.columns if isinstance(self.columns, list) else None
                frame = read_table(path, header=header, delimiter=self.delimiter, encoding=self.encoding)
                frames.append(self._named(frame, path))
            whole = self._joined(frames)
            yield whole if columns is None else whole.select(columns)
            return
        mapping = self.columns if isinstance(self.columns, dict) else {}
        for path, total in zip(self.files, self._counts, strict=True):
            scan = _scan(path)
            if columns is not None:
                wanted = [mapping.get(name, name) for name in columns if name != self.file_column]
                scan = scan.select(wanted or pl.first())
            for begin in range(0, max(total, 1), self.chunk_rows):  # of a file without rows the columns
                piece = _collected(scan.slice(begin, self.chunk_rows), path)
                frame = self._named(piece, path, partial=columns is not None)
                frame = frame if columns is None else frame.select(columns)
                yield frame.cast({name: self.schema[name] for name in frame.columns})  # files differ: int32 and int64

    def _named(self, frame: pl.DataFrame, path: Path, *, partial: bool = False) -> pl.DataFrame:
        if isinstance(self.columns, dict):
            kept = {ours: theirs for ours, theirs in self.columns.items() if not partial or theirs in frame.columns}
            frame = map_columns(frame, kept, required=(), path=path, key="data.source.columns")
        elif self.columns is not None and not self.text:
            raise GenrecError(f"data.source.columns: {path} names its columns itself; map them: {{ours: theirs}}.")
        if self.file_column is None:
            return frame
        if self.file_column in frame.columns:
            raise GenrecError(f"data.source.file_column={self.file_column}: {path} has such a column. Choose another.")
        return frame.with_columns(pl.lit(path.name.split(".")[0]).alias(self.file_column))

    def _joined(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """The frames of all files as one, each column of a type that holds those of all."""
        for path, frame in zip(self.files, frames, strict=True):
            if frame.columns != frames[0].columns:
                other = sorted(set(frame.columns) ^ set(frames[0].columns))
                raise GenrecError(
                    f"{path} has other columns than {self.files[0].name} ({', '.join(other) or 'in another order'}). "
                    "Give one of them: data.path=<file>."
                )
        for name in frames[0].columns:
            types = list(dict.fromkeys(frame.schema[name] for frame in frames))
            if len({dtype.is_nested() for dtype in types if dtype != pl.Null}) > 1:
                self._refuse(f"{name} is of types {', '.join(map(str, types))}")
        try:
            return pl.concat(frames, how="vertical_relaxed") if len(frames) > 1 else frames[0]
        except pl.exceptions.PolarsError as error:
            return self._refuse(in_brief(error))

    def _refuse(self, why: str) -> NoReturn:
        raise GenrecError(
            f"The columns of {', '.join(path.name for path in self.files)} do not go together: {why}. Write the files "
            "with the same types, or give one of them: data.path=<file>."
        )


def _collected(scan: pl.LazyFrame, path: Path) -> pl.DataFrame:
    try:
        return checked_times(scan.collect(), path)
    except UNREADABLE as error:
        raise GenrecError(f"{path} is not a readable Parquet file: {in_brief(error)}") from None


def _scan(path: Path) -> pl.LazyFrame:
    """A Parquet file of which nothing but its metadata is read yet."""
    scan = pl.scan_parquet(path)
    try:
        scan.collect_schema()
    except UNREADABLE as error:
        raise GenrecError(f"{path} is not a readable Parquet file: {in_brief(error)}") from None
    return scan
