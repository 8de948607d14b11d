"""Buckets and intervals by known answers."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.report.segments import bucket_edges, bucket_names, mean_interval, segment_table, wilson


def test_quantiles_divide_evenly() -> None:
    values = pl.Series(range(100))
    assert bucket_edges(values, 5) == [0, 20, 40, 60, 80]
    assert bucket_names([0, 20, 40, 60, 80], values) == ["0 to 19", "20 to 39", "40 to 59", "60 to 79", "80 and more"]


def test_few_values_are_their_own_buckets() -> None:
    values = pl.Series([2, 2, 2, 2, 3, 9])
    assert bucket_edges(values, 5) == [2, 3, 9]
    assert bucket_names([2, 3, 9], values) == ["2", "3", "9"]


def test_equal_values_share_a_bucket() -> None:
    edges = bucket_edges(pl.Series([1] * 70 + list(range(2, 32))), 5)
    assert edges[0] == 1 and edges == sorted(set(edges))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(1, 6))
def test_every_user_is_in_one_bucket(lengths: list[int], count: int) -> None:
    frame = pl.DataFrame({"length": lengths, "recall@10": [1.0] * len(lengths)})
    found = segment_table(frame, "length", ["recall@10"], count=count)
    assert found["users"].sum() == len(lengths)
    assert found["users"].min() > 0 and len(found) <= max(count, 1)  # type: ignore[operator]
    assert found["mean"].to_list() == [1.0] * len(found)


def test_means_by_hand() -> None:
    frame = pl.DataFrame({"length": [1, 1, 1, 1, 2, 2], "recall@10": [1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
                          "ndcg@10": [0.5, 0.1, 0.2, 0.4, 0.3, 0.3]})  # fmt: skip
    found = segment_table(frame, "length", ["recall@10", "ndcg@10"])
    assert found.select("bucket", "name", "users", "metric").rows() == [
        (0, "1", 4, "recall@10"), (0, "1", 4, "ndcg@10"), (1, "2", 2, "recall@10"), (1, "2", 2, "ndcg@10")]  # fmt: skip
    assert found["mean"].to_list() == pytest.approx([0.25, 0.3, 1.0, 0.3])
    # normal: 0.3 +- 1.96 * sqrt(((.2)^2 + (.2)^2 + (.1)^2 + (.1)^2) / 3) / 2
    half = 1.959964 * math.sqrt(0.10 / 3) / 2
    assert found.row(1)[5:] == pytest.approx((0.3 - half, 0.3 + half))


def test_users_without_a_value_are_left_out() -> None:
    frame = pl.DataFrame({"length": [1.0, None, math.nan, 3.0], "recall@10": [1.0, 0.0, 0.0, 0.0]})
    assert segment_table(frame, "length", ["recall@10"])["users"].to_list() == [1, 1]


def test_wilson_against_its_published_example() -> None:
    # R: binom::binom.wilson(5, 10) and prop.test(0, 20, correct=FALSE)
    assert wilson(5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)


def test_shares_get_an_interval_even_where_nothing_varies() -> None:
    assert mean_interval(pl.Series([0.0] * 20))[1:] == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert all(math.isnan(value) for value in mean_interval(pl.Series([], dtype=pl.Float64)))
    assert mean_interval(pl.Series([0.3]))[1:] == (-math.inf, math.inf)


def test_an_interval_does_not_leave_what_a_metric_can_be() -> None:
    frame = pl.DataFrame({"length": [1, 1, 1, 2, 2, 2], "ndcg@10": [0.0, 0.0, 0.6, 1.0, 1.0, 0.4]})
    found = segment_table(frame, "length", ["ndcg@10"])
    assert mean_interval(frame["ndcg@10"][:3])[1] < 0 < 1 < mean_interval(frame["ndcg@10"][3:])[2]
    assert found["low"][0] == 0.0 and found["high"][1] == 1.0
