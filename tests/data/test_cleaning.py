from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log, with_items
from genrec.data.interactions import DataReport


def rows(users, items, times=None, **more):
    data = {"user_id": users, "item_id": items, **({} if times is None else {"timestamp": times}), **more}
    return pl.DataFrame(data, strict=False)


def test_rows_are_sorted_by_user_time_and_stored_order():
    frame = rows(["b", "a", "b", "a", "b"], ["1", "2", "3", "4", "5"], ["7", "9", "7", "1", "2"])
    log, _ = build_log(frame)
    assert log.frame().rows() == [("a", 4, 1), ("a", 2, 9), ("b", 5, 2), ("b", 1, 7), ("b", 3, 7)]


def test_without_times_the_stored_order_stays():
    log, report = build_log(rows([2, 1, 2, 1, 2, 2], [9, 8, 7, 6, 5, 9]))
    assert log.timestamps is None
    assert log.item_ids[log.items].tolist() == [8, 6, 9, 7, 5, 9]  # the repeated visit of 9 is no duplicate
    assert "stored order" in report.notes[0]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["9007199254740993", "9007199254740992"], "i"),  # 2^53 + 1 and 2^53 are one float64
        (["16777217", "16777216"], "i"),  # 2^24 + 1 and 2^24 are one float32
        (["4294967297", "1"], "i"),
        (["99999999999999999999", "99999999999999999998"], "U"),  # beyond int64
        (["007", "7"], "U"),  # two ids, not one
        (["+5", "5"], "U"),
        (["B00", "7806397051"], "U"),
    ],
)
def test_ids_are_exact(ids, kind):
    log, _ = build_log(rows(ids, ids))
    assert log.num_users == log.num_items == 2
    assert sorted(map(str, log.item_ids.tolist())) == sorted(ids)
    assert log.item_ids.dtype.kind == log.user_ids.dtype.kind == kind


def test_bad_rows_and_duplicates_are_counted():
    frame = rows(
        ["1", "", None, "1", "1", "1", "1", "2"],
        ["5", "5", "5", " ", "6", "6", "7", "5"],
        ["10", "11", "12", "13", "14", "14", "soon", "15"],
    )
    log, report = build_log(frame)
    assert report.counts == {
        "rows_read": 8,
        "rows_missing_user": 2,
        "rows_missing_item": 1,
        "rows_bad_timestamp": 1,
        "duplicate_rows": 1,
        "users": 2,
        "items": 2,
        "interactions": 3,
    }
    assert report.notes == ["First rows without a readable timestamp: 7."]
    assert len(log) == 3
    text = "\n".join(report.lines())
    assert "2 users, 2 items, 3 interactions" in text
    assert "exact duplicates dropped: 1" in text


def test_duplicates_can_be_kept_and_differ_in_any_column():
    frame = rows([1, 1, 1], [5, 5, 5], [3, 3, 3], rating=[1, 1, 2])
    assert len(build_log(frame)[0]) == 2
    assert len(build_log(frame, cleaning=Cleaning(drop_duplicates=False))[0]) == 3


def test_no_readable_timestamp_is_an_error_and_an_empty_column_is_none():
    with pytest.raises(GenrecError, match=r"'soon'.*2014-07-23"):
        build_log(rows([1], [1], ["soon"]))
    log, report = build_log(rows([1, 1], [1, 2], [None, None]))
    assert log.timestamps is None
    assert "column is empty" in report.notes[0]


def test_k_core_is_iterative():
    # Item 3 has one user. Without it user "c" has one item left, and then item 2 has one user: 0 and 1 of a and b stay.
    frame = rows(list("aabbcc"), [0, 1, 0, 1, 2, 3])
    frame = pl.concat([frame, rows(["a"], [2])])
    log, report = build_log(frame, cleaning=Cleaning(min_user_interactions=2, min_item_interactions=2))
    assert log.user_ids.tolist() == ["a", "b"]
    assert log.item_ids.tolist() == [0, 1]
    assert (report.counts["rows_filtered"], report.counts["users_filtered"], report.counts["items_filtered"]) == (
        3,
        1,
        2,
    )


def test_k_core_matches_a_plain_reference():
    generator = np.random.default_rng(3)
    pairs = np.unique(
        np.stack([generator.zipf(1.5, 900) % 60, generator.integers(0, 50, 900)], axis=1), axis=0
    ).tolist()
    log, _ = build_log(
        rows([p[0] for p in pairs], [p[1] for p in pairs]),
        cleaning=Cleaning(min_user_interactions=4, min_item_interactions=6),
    )
    while True:
        users = [p[0] for p in pairs]
        items = [p[1] for p in pairs]
        kept = [p for p in pairs if users.count(p[0]) >= 4 and items.count(p[1]) >= 6]
        if len(kept) == len(pairs):
            break
        pairs = kept
    assert pairs
    assert sorted(zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), strict=True)) == sorted(
        map(tuple, pairs)
    )


def test_nothing_left_says_what_was_dropped():
    with pytest.raises(GenrecError, match="minimum counts: 2"):
        build_log(rows([1, 2], [1, 2]), cleaning=Cleaning(min_user_interactions=2))


ITEMS = pl.DataFrame({"item_id": ["30", "10", "20", "10", None], "title": ["C", "A", "B", "again", "none"]})


def test_items_keep_the_order_of_their_table_and_unknown_ones_follow():
    log, report = build_log(rows([1, 1, 1], ["40", "10", "30"]), items=ITEMS)
    assert log.item_ids.tolist() == [30, 10, 40]
    assert log.item_table is not None
    assert log.item_table["title"].to_list() == ["C", "A", None]
    counts = ("unknown_items", "rows_of_unknown_items", "unused_items", "duplicate_item_rows", "items_missing_id")
    assert [report.counts[name] for name in counts] == [1, 1, 1, 1, 1]


def test_unknown_and_unused_items_by_choice():
    frame = rows([1, 1, 1], ["40", "10", "30"])
    log, _ = build_log(frame, items=ITEMS, cleaning=Cleaning(unknown_items="drop", unused_items="keep"))
    assert log.item_ids.tolist() == [30, 10, 20]
    assert len(log) == 2
    with pytest.raises(GenrecError, match=r"1 items .*'40'|1 items .*40"):
        build_log(frame, items=ITEMS, cleaning=Cleaning(unknown_items="error"))


def test_item_table_written_another_way_does_not_lose_its_rows():
    """Ids of both tables are strings as soon as one of them is no plain integer."""
    items = pl.DataFrame({"item_id": ["007", "8"], "title": ["bond", "eight"]})
    log, report = build_log(rows([1, 1], [8, 8], [1, 2]), items=items)
    assert log.item_ids.tolist() == ["8"]
    assert "unknown_items" not in report.counts


def test_users_without_interactions_are_counted():
    users = pl.DataFrame({"user_id": ["1", "2", "3"], "age": [30, 40, 50]})
    log, report = build_log(rows([1, 3], [5, 5]), users=users)
    assert report.counts["empty_users"] == 1
    assert log.user_table is not None
    assert log.user_table["age"].to_list() == [30, 50]


def test_extra_columns_become_numbers_where_they_are():
    frame = rows([1, 1, 1], [1, 2, 3], rating=["4.5", "bad", "3"], clicks=["1", "2", "3"], day=["mon", "tue", "1"])
    log, report = build_log(frame)
    np.testing.assert_array_equal(log.extras["rating"], [4.5, np.nan, 3.0])
    assert log.extras["clicks"].dtype == np.int64
    assert log.extras["day"].tolist() == ["mon", "tue", "1"]
    assert report.counts["values_not_numbers"] == 1
    assert log.columns == ["user_id", "item_id", "rating", "clicks", "day"]


def test_with_items_aligns_a_later_table():
    log, _ = build_log(rows([1, 1, 2], [7, 5, 7]))
    report = DataReport()
    log = with_items(log, pl.DataFrame({"item_id": ["7", "9"], "title": ["seven", "nine"]}), report)
    assert log.item_table is not None
    assert log.item_table.rows() == [(5, None), (7, "seven")]
    assert report.counts["rows_of_unknown_items"] == 1


@pytest.mark.parametrize("options", [{"unknown_items": "ignore"}, {"unused_items": "x"}, {"min_user_interactions": 0}])
def test_wrong_rules_are_refused(options):
    with pytest.raises(GenrecError, match=next(iter(options))):
        Cleaning(**options)


def test_a_table_of_a_header_only_says_so():
    with pytest.raises(GenrecError, match="No interaction is left after cleaning:\n  rows read: 0"):
        build_log(pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.String}))
