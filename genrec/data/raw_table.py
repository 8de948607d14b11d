"""The raw columns of a source, whole or in pieces, as fitting and transforming read them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from genrec.contracts import GenrecError
from genrec.data.columns import check_columns
from genrec.data.parsing import parse_times

logger = logging.getLogger("genrec.data")

CHUNK_ROWS = 262_144
_SECONDS_BETWEEN_LINES = 10.0


class TableData(Protocol):
    """Where rows come from: ``name`` is short and readable, ``chunks`` gives the rows in their order.

    One that ``streams`` also has ``num_rows``, ``schema``, ``chunk_rows`` and ``origin``, and ``chunks(columns)``
    gives some columns only; ``text`` says that numbers come as strings.
    """

    @property
    def name(self) -> str: ...
    def chunks(self) -> Iterator[pl.DataFrame]: ...


class RawTable:
    """The columns of a source. One that does not stream is read once and held; ``timestamp`` is a column of times."""

    def __init__(self, source: Any, timestamp: str | None = None) -> None:
        self.source = source
        self.timestamp = timestamp
        self.text = bool(getattr(source, "text", False))
        self.chunk_rows = int(getattr(source, "chunk_rows", CHUNK_ROWS))
        self._frame = None if getattr(source, "streams", False) else pl.concat(list(source.chunks()))
        self.num_rows: int = source.num_rows if self._frame is None else self._frame.height
        self.schema: dict[str, Any] = dict(source.schema if self._frame is None else self._frame.schema)
        if not self.num_rows:
            raise GenrecError(f"{source.name} has no rows.")

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
        """Numbers of the rows (M,), and the rows, piece by piece; long readings are logged."""
        begin, told = 0, time.monotonic()
        for frame in self._pieces(columns):
            yield np.arange(begin, begin + frame.height), frame
            begin += frame.height
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                logger.info("read %.1f of %.1f million rows", begin / 1e6, self.num_rows / 1e6)
                told = time.monotonic()

    def _pieces(self, columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        if self._frame is None:
            yield from self.source.chunks(columns)
            return
        frame = self._frame if columns is None else self._frame.select(columns)
        for begin in range(0, self.num_rows, self.chunk_rows):
            yield frame.slice(begin, self.chunk_rows)

    def column(self, name: str, key: str) -> pl.Series:
        """One column whole; ``key`` of the YAML names it in errors."""
        check_columns({key: [name]}, list(self.schema), self.source.name)
        return pl.concat([frame[name] for _, frame in self.chunks([name])])

    def timestamps(self) -> np.ndarray:
        """The times of all rows (M,)."""
        if self.timestamp is None:
            raise GenrecError(
                "A split by global time needs a column of times, and data.timestamp names none. "
                f"Name it (data.timestamp=<column>), or use split=random_rows. Columns: {', '.join(self.schema)}."
            )
        times = parse_times(self.column(self.timestamp, "data.timestamp"))
        if times.has_nulls():
            raise GenrecError(
                f"data.timestamp={self.timestamp}: {times.null_count():,} of {self.num_rows:,} rows have no readable "
                "time. Use split=random_rows, or drop these rows from the file."
            )
        return times.to_numpy()
