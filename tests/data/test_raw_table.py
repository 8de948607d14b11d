from __future__ import annotations

import logging

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data import raw_table
from genrec.data.raw_table import RawTable
from genrec.data.sources.table import TableSource


class Pieces:
    """A source that is not in files: two frames."""

    name = "pieces"
    chunk_rows = 4

    def chunks(self):
        yield pl.DataFrame({"x": [1, 2, 3], "day": ["2020-01-03", "2020-01-01", "2020-01-02"]})
        yield pl.DataFrame({"x": [4, 5, 6], "day": ["2020-01-04", "2020-01-05", "2020-01-06"]})


@pytest.mark.parametrize("streams", [False, True])
def test_rows_are_numbered_through_all_pieces(tmp_path, streams):
    source = Pieces()
    if streams:
        pl.concat(source.chunks()).write_parquet(tmp_path / "a.parquet")
        source = TableSource(path=str(tmp_path / "a.parquet"), chunk_rows=4)
    table = RawTable(source)
    pieces = list(table.chunks(["x"]))
    assert [frame.height for _, frame in pieces] == [4, 2]
    assert np.concatenate([rows for rows, _ in pieces]).tolist() == list(range(6))
    assert table.column("x", "key").to_list() == [1, 2, 3, 4, 5, 6]
    assert (table.num_rows, list(table.schema)) == (6, ["x", "day"])


def test_times_are_read_from_their_column():
    times = RawTable(Pieces(), "day").timestamps()
    assert times.tolist() == [1577836800 + 86400 * day for day in (2, 0, 1, 3, 4, 5)]
    with pytest.raises(GenrecError, match=r"data\.timestamp=<column>"):
        RawTable(Pieces()).timestamps()
    with pytest.raises(GenrecError, match=r"data\.timestamp: pieces has no column 'time'"):
        RawTable(Pieces(), "time").timestamps()


def test_a_table_without_rows_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n")
    with pytest.raises(GenrecError, match="no rows"):
        RawTable(TableSource(path=str(tmp_path / "a.csv")))


def test_long_readings_are_told(monkeypatch, caplog):
    monkeypatch.setattr(raw_table, "_SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level(logging.INFO, "genrec.data"):
        list(RawTable(Pieces()).chunks())
    assert len(caplog.messages) == 2 and caplog.messages[-1].endswith("million rows")
