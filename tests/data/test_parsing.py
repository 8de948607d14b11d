from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.parsing import exact_ids, flattened, is_plain_integer, parse_times


def test_float_ids_only_where_they_are_exact():
    assert exact_ids(pl.Series([1.0, None, float("nan")]), "user_id").to_list() == [1, None, None]
    for broken in ([1.5], [2.0**60]):
        with pytest.raises(GenrecError, match="user_id holds floating-point"):
            exact_ids(pl.Series(broken), "user_id")


def test_unsigned_ids_beyond_int64_become_strings():
    ids = exact_ids(pl.Series([2**63 + 5], dtype=pl.UInt64), "user_id")
    assert ids.to_list() == [str(2**63 + 5)]


def test_plain_integers():
    assert is_plain_integer(pl.Series(["7", "-3", "9007199254740993"]))
    for other in ("007", "+7", "7.0", "99999999999999999999", "x"):
        assert not is_plain_integer(pl.Series(["7", other]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["3", "1"], [3, 1]),
        (["3.0", "1"], [3, 1]),
        (["3.25", "x"], [3.25, None]),
        (["3", "nan", "inf"], [3, None, None]),
        (["1970-01-02", "0", "1970-01-03"], [86400, None, 172800]),
        (["1970-01-02", "nan"], [86400, None]),
        (["nan", "NaN"], [None, None]),
        (["1970-01-02", "5"], [None, 5]),
        (["1970-01-02", "1970-01-01 00:01:00"], [86400, 60]),
        (["1970-01-01T00:00:01Z", "1970-01-01T00:00:02.500Z"], [1.0, 2.5]),
        ([date(1970, 1, 3)], [172800]),
        ([datetime(1970, 1, 1, 0, 0, 5)], [5]),
        ([datetime(1970, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=-1)))], [3605]),
        ([float("nan"), float("inf"), 2.0], [None, None, 2]),
        ([1700000000123456789], [1700000000123456789]),
        (["1700000000123456789", "bad"], [1700000000123456789, None]),
    ],
)
def test_timestamps_are_read(given, expected):
    parsed = parse_times(pl.Series(given))
    assert parsed.to_list() == expected
    assert parsed.dtype == (pl.Float64 if any(isinstance(value, float) for value in expected) else pl.Int64)


def test_nested_columns_become_text():
    frame = pl.DataFrame({"item_id": [[1]], "deep": [[["a"], ["b"]]], "object": [{"x": 1}], "plain": [7]})
    flat = flattened(frame, ids=["item_id"])
    assert flat.row(0) == ([1], '[["a"], ["b"]]', '{"x": 1}', 7)
    with pytest.raises(GenrecError, match="item_id holds lists"):
        exact_ids(flat["item_id"], "item_id")
