"""Tables of any ids, times and gaps: nothing is lost, changed or invented on the way into a log."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.contracts import GenrecError
from genrec.data.interactions import SourceData
from genrec.data.sources.folder import FolderSource
from genrec.data.sources.table import TableSource
from genrec.data.storage import load_folder, save_folder
from genrec.data.tables import read_table
from tests.properties.effort import effort

_ODD = ["007", "7", "+7", "-0", "-7", "0", "1e3", "1.0", "9223372036854775807", "9223372036854775808", "9" * 40, "nan",
        "NULL", "None", "true", " ", "", '"', '""', "a,b", "a\tb", "a\nb", "a\r\nb", "'", "日本", "🛒", "e\u0301", "é",
        "\ufeff", "#", "\\", "\\n", "a;b", "a|b", "A", "a "]  # fmt: skip
ids = st.one_of(
    st.sampled_from(_ODD),
    st.integers(-(2**70), 2**70).map(str),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), max_size=6),
)
times = st.one_of(st.none(), st.integers(-(2**40), 2**40).map(str))
rows = st.lists(st.tuples(st.one_of(st.none(), ids), st.one_of(st.none(), ids), times), min_size=1, max_size=12)
COLUMNS = ("user_id", "item_id", "timestamp")
Rows = list[tuple[Any, ...]]


def write_csv(path: Path, table: Rows, delimiter: str = ",") -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows([["" if cell is None else cell for cell in row] for row in table])


def write_lines(path: Path, table: Rows) -> None:
    path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in table), encoding="utf-8")


def write_parquet(path: Path, table: Rows) -> None:
    pl.DataFrame(table, schema=dict.fromkeys(COLUMNS, pl.String), orient="row").write_parquet(path)


WRITERS = {".csv": write_csv, ".jsonl": write_lines, ".parquet": write_parquet}


def loaded(table: Rows, suffix: str, **options: Any) -> SourceData | None:
    """What a source makes of a table, None where it refuses it with a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"interactions{suffix}"
        WRITERS[suffix](path, table)
        try:
            return FolderSource(path=str(path), **options).load()
        except GenrecError as error:
            assert str(error)
            return None


def as_read(cell: str | None) -> str | None:
    """An id as it counts: white space around it is none of it, and nothing is missing."""
    return (cell or "").strip() or None


def expected(table: Rows) -> list[tuple[str, str, int | None]]:
    """The rows that are kept, by a plain walk through them; times are dropped where there are none at all."""
    whole = [(as_read(user), as_read(item), time) for user, item, time in table]
    named = [(user, item, time) for user, item, time in whole if user is not None and item is not None]
    if all(time is None for *_, time in named):
        return [(user, item, None) for user, item, _ in named]
    kept = [(user, item, int(time)) for user, item, time in named if time is not None]
    return list(dict.fromkeys(kept))


@effort(80)
@given(table=rows)
def test_ids_are_those_of_the_file(table: Rows) -> None:
    data, wanted = loaded(table, ".csv"), expected(table)
    if data is None:
        assert not wanted
        return
    users = data.log.user_ids[data.log.users].tolist()
    items = data.log.item_ids[data.log.items].tolist()
    moments = [None] * len(users) if data.log.timestamps is None else data.log.timestamps.tolist()
    found = [(str(user), str(item), moment) for user, item, moment in zip(users, items, moments, strict=True)]
    assert Counter(found) == Counter(wanted)
    assert len(set(data.log.user_ids.tolist())) == data.log.num_users == len({user for user, *_ in wanted})


@effort(40)
@given(table=rows, minimum=st.integers(1, 3))
def test_the_report_adds_up(table: Rows, minimum: int) -> None:
    data = loaded(table, ".csv", min_user_interactions=minimum, min_item_interactions=minimum)
    if data is None:
        return
    dropped = ("rows_missing_user", "rows_missing_item", "rows_bad_timestamp", "duplicate_rows", "rows_filtered")
    counts = data.report.counts
    assert counts["rows_read"] == len(table) == len(data.log) + sum(counts.get(name, 0) for name in dropped)
    assert counts["interactions"] == len(data.log)
    for codes, number in ((data.log.users, data.log.num_users), (data.log.items, data.log.num_items)):
        assert (np.bincount(codes, minlength=number) >= minimum).all()


@effort(40)
@given(table=rows)
def test_rows_come_by_user_then_time_then_place(table: Rows) -> None:
    numbered = [(user, item, time, str(place)) for place, (user, item, time) in enumerate(table)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        pl.DataFrame(
            numbered, schema=dict.fromkeys((*COLUMNS, "place"), pl.String), orient="row"
        ).write_parquet(path)  # fmt: skip
        try:
            log = FolderSource(path=str(path)).load().log
        except GenrecError:
            return
    moments = np.zeros(len(log)) if log.timestamps is None else log.timestamps
    keys = list(zip(log.users.tolist(), moments.tolist(), log.extras["place"].tolist(), strict=True))
    assert keys == sorted(keys)


@effort(40)
@given(table=rows)
def test_every_format_gives_the_same_log(table: Rows) -> None:
    logs = [loaded(table, suffix) for suffix in WRITERS]
    assert len({None if data is None else data.log.fingerprint for data in logs}) == 1


@effort(30)
@given(table=rows)
def test_a_canonical_folder_is_read_as_it_was_written(table: Rows) -> None:
    data = loaded(table, ".jsonl")
    if data is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        save_folder(data, Path(folder), name="x")
        again = load_folder(Path(folder))
    assert again.log.fingerprint == data.log.fingerprint
    assert again.report.counts == data.report.counts
    assert again.log.user_ids.dtype == data.log.user_ids.dtype


@effort(40)
@given(table=rows, size=st.integers(1, 5))
def test_pieces_of_a_table_are_the_table(table: Rows, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        write_parquet(path, table)
        pieces = list(TableSource(path=str(path), chunk_rows=size).chunks())
        assert max(piece.height for piece in pieces) <= size
        assert pl.concat(pieces).equals(read_table(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "::"])
@effort(30)
@given(table=st.lists(st.tuples(*[st.text("ab é日7.-_'", min_size=1, max_size=5)] * 3), min_size=1, max_size=8))
def test_cells_of_any_delimiter_are_kept(delimiter: str, table: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        lines = [delimiter.join(COLUMNS), *(delimiter.join(row) for row in table)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert read_table(path, delimiter=delimiter).rows() == table


_ANY_TIME = st.one_of(
    times, st.floats().map(str), st.dates().map(str), st.datetimes().map(str), st.text(max_size=5), st.just("1e400")
)


@effort(40)
@given(moments=st.lists(_ANY_TIME, min_size=1, max_size=8))
def test_any_times_are_read_or_counted(moments: list[str | None]) -> None:
    data = loaded([("u", str(place), time) for place, time in enumerate(moments)], ".jsonl")
    if data is None:
        return
    counts = data.report.counts
    assert counts.get("rows_bad_timestamp", 0) + len(data.log) == len(moments)
    if data.log.timestamps is not None:
        assert np.isfinite(data.log.timestamps).all()
        assert (np.diff(data.log.timestamps) >= 0).all()
