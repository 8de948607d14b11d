from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from genrec.artifacts import fingerprint
from genrec.data import interactions
from genrec.data.interactions import DataReport, InteractionLog, column_array, encode, is_sorted


def make_log(**changes):
    log = InteractionLog(
        users=np.array([0, 0, 1]),
        items=np.array([1, 0, 1]),
        user_ids=np.array([2**40, 7]),
        item_ids=np.array(["b", "a"]),
        timestamps=np.array([5, 6, 1]),
        extras={"rating": np.array([1.0, 2.0, 3.0])},
        item_table=pl.DataFrame({"item_id": ["b", "a"], "title": ["B", None]}),
    )
    return replace(log, **changes)


def test_frame_shows_raw_ids():
    assert make_log().frame().rows() == [(2**40, "a", 5, 1.0), (2**40, "b", 6, 2.0), (7, "a", 1, 3.0)]
    assert make_log().columns == ["user_id", "item_id", "timestamp", "rating"]


def test_fingerprint_sees_every_part():
    prints = {
        make_log(**changes).fingerprint
        for changes in (
            {},
            {"items": np.array([1, 0, 0])},
            {"timestamps": None},
            {"user_ids": np.array([2**40, 8])},
            {"item_ids": np.array(["b", "c"])},
            {"extras": {}},
            {"item_table": pl.DataFrame({"item_id": ["b", "a"], "title": ["B", "A"]})},
            {"item_table": None},
        )
    }
    assert len(prints) == 8
    assert make_log().fingerprint == make_log().fingerprint


def test_columns_of_every_kind_are_kept():
    """Fault: texts as wide as the longest, and errors of polars for columns that nobody asked for."""
    columns = {
        "review": (["x" * 30_000, "good", None], ["x" * 30_000, "good", ""]),
        "session": (pl.Series([2**63 + 5, 1, 2], dtype=pl.UInt64), [str(2**63 + 5), "1", "2"]),
        "count": (pl.Series([5, 1, 2], dtype=pl.UInt64), [5, 1, 2]),
        "key": (pl.Series([b"\xff\x00", b"a", None]), ["ff00", "61", ""]),
        "spent": (pl.Series([1, 2, 3]).cast(pl.Duration("ms")), [1000, 2000, 3000]),
        "price": (pl.Series(["1.50", "2", "3"]).cast(pl.Decimal(10, 2)), [1.5, 2.0, 3.0]),
        "liked": (pl.Series([True, False, True]), [1, 0, 1]),
    }
    found = {name: column_array(pl.Series(name, given)) for name, (given, _) in columns.items()}
    assert {name: array.tolist() for name, array in found.items()} == {
        name: kept for name, (_, kept) in columns.items()
    }
    assert found["review"].nbytes < 100
    log = make_log(extras=found)
    assert log.frame()["review"].to_list() == columns["review"][1]
    assert log.fingerprint != make_log(extras={**found, "review": found["review"][::-1].copy()}).fingerprint


def test_order_is_judged_block_by_block(monkeypatch):
    monkeypatch.setattr(interactions, "_BLOCK", 3)
    assert is_sorted(np.array([0, 0, 1, 1, 1, 5, 5])) and is_sorted(np.zeros(0))
    for place in range(1, 7):
        values = np.arange(7)
        values[place] = values[place - 1] - 1
        assert not is_sorted(values)


def test_unsorted_or_ragged_columns_are_refused():
    with pytest.raises(ValueError, match="sorted by user"):
        make_log(users=np.array([0, 1, 0]))
    with pytest.raises(ValueError, match="equal length"):
        make_log(timestamps=np.array([1]))


def test_encode_gives_positions():
    assert encode(pl.Series(["x", "z", "y", "x"]), pl.Series(["y", "x"])).tolist() == [1, -1, 0, 1]


def test_report_shows_only_what_happened():
    report = DataReport()
    report.add("duplicate_rows", 0)
    report.add("unused_items", 1200)
    report.add("unused_items", 34)
    report.notes.append("A note.")
    assert report.lines() == ["items of the table without any interaction: 1,234", "A note."]


def test_the_fingerprint_of_a_long_table_makes_no_list_of_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hashed is the JSON of each column, a few values at a time; the key is that of the whole."""
    table = pl.DataFrame({"title": ["it's", None, 'a "b"', "ü", "\\"], "price": [1.5, None, 2.0, float("nan"), 3.0]})
    whole = {name: json.dumps(table[name].to_list(), default=str) for name in table.columns}
    monkeypatch.setattr(interactions, "_VALUES_AT_ONCE", 2)
    content = interactions._table_content(table)
    assert content is not None and fingerprint(content) == fingerprint(whole)
    pieces = list(interactions._as_json(table["title"]).pieces)
    assert len(pieces) == 5 and "".join(pieces) == whole["title"]
