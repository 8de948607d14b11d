"""Ticks and numbers by known answers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.report.scales import (
    Scale,
    format_bytes,
    format_number,
    format_seconds,
    format_tick,
    format_ticks,
    log_ticks,
    padded,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 10, [0, 2, 4, 6, 8, 10]), (1, 12, [5, 10]),
     (0.07, 0.093, [0.07, 0.075, 0.08, 0.085, 0.09])],
)  # fmt: skip
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


@given(st.floats(-1e5, 1e5, allow_subnormal=False), st.floats(1e-3, 1e6), st.integers(2, 9))
def test_ticks_lie_within_and_are_evenly_spaced(low: float, width: float, count: int) -> None:
    found = ticks(low, low + width, count)
    assert len(found) <= count + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)
    steps = [right - left for left, right in pairwise(found)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)
    assert len(set(format_ticks(found))) == len(found)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1e-4, 1e-2, [1e-4, 1e-3, 1e-2]), (1, 1e6, [1, 100, 1e4, 1e6]), (2, 8, [2, 4, 6, 8])],
)
def test_logarithmic_ticks(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high, 4) == pytest.approx(expected)


def test_a_scale_maps_ends_and_middle() -> None:
    assert [Scale(0, 10, 100, 300)(x) for x in (0, 5, 10)] == [100, 200, 300]
    assert [Scale(1e-4, 1e-2, 0, 2, log=True)(x) for x in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 1, 2])
    assert Scale(3, 3, 0, 8)(3) == 4  # a single value lies in the middle


def test_padding_gives_air_and_keeps_zero() -> None:
    assert padded([2, 4], share=0.5) == (1, 5)
    assert padded([2, 4], zero=True, share=0.5) == (0, 6)
    assert padded([math.nan, math.inf]) == (0, 1)
    assert padded([0.0, 1.0, 100.0], log=True, share=0.5) == pytest.approx((0.1, 1000))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.39051, "0.3905"), (12101, "12,101"), (123.456, "123.46"), (0.0003, "3e-4"), (0.000123, "1.23e-4"), (0.0, "0"),
     (None, "-"), (198_502.4, "198,502"), (-3.2083, "-3.2083"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_of_tables(value: float | None, shown: str) -> None:
    assert format_number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1, "0.1"), (25000, "25k"), (2.5e6, "2.5M"), (1e-5, "1e-5"), (3.0, "3")]
)
def test_numbers_of_ticks(value: float, shown: str) -> None:
    assert format_tick(value) == shown


def test_ticks_of_an_axis_are_told_apart() -> None:
    assert format_ticks([0.90001, 0.90002]) == ["0.90001", "0.90002"]
    assert format_ticks([0.0, 0.1]) == ["0", "0.1"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.04 s"), (1.65, "1.6 s"), (52.4, "52 s"), (185, "3 min 05 s"), (8040, "2 h 14 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(("size", "shown"), [(801_841_152, "802 MB"), (1.24e9, "1.24 GB"), (999_600, "1 MB")])
def test_sizes(size: float, shown: str) -> None:
    assert format_bytes(size) == shown


def test_a_narrow_range_without_a_round_number_has_ticks_all_the_same() -> None:
    assert log_ticks(111.0, 118.0) == [111.0, 118.0]
