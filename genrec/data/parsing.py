"""Columns of raw tables as exact ids, times and numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.interactions import DataReport

_MAX_EXACT_FLOAT = float(2**53)


def exact_ids(ids: pl.Series, name: str) -> pl.Series:
    """Ids as strings or int64, missing ones null; floats only where every one is an integer below 2^53."""
    if ids.dtype.is_nested():
        raise GenrecError(
            f"The column {name} holds lists or objects; every row needs one id. Write one row per interaction."
        )
    if ids.dtype.is_integer():
        as_int64 = ids.cast(pl.Int64, strict=False)
        return as_int64 if as_int64.null_count() == ids.null_count() else ids.cast(pl.String)
    if ids.dtype.is_float():
        ids = ids.fill_nan(None)
        broken = int(((ids != ids.round()) | (ids.abs() > _MAX_EXACT_FLOAT)).fill_null(False).sum())
        if broken:
            raise GenrecError(
                f"The column {name} holds floating-point numbers, and {broken} of them are no exact integers "
                "(ids above 2^53 lose digits that way). Store ids as integers or strings."
            )
        return ids.cast(pl.Int64)
    stripped = ids.cast(pl.String).str.strip_chars()
    return stripped.set(stripped.str.len_bytes() == 0, None)


def flattened(frame: pl.DataFrame, *, ids: Sequence[str]) -> pl.DataFrame:
    """Columns of lists and objects as text; ``ids`` are left alone, since ``exact_ids`` refuses such ones."""
    nested = [name for name in frame.columns if frame[name].dtype.is_nested() and name not in ids]
    return frame.with_columns(pl.Series(name, map(_as_text, frame[name].to_list()), dtype=pl.String) for name in nested)


def _as_text(value: Any) -> str | None:
    """A list of plain values joined by commas, anything deeper as JSON."""
    if isinstance(value, list) and not any(isinstance(entry, list | dict) for entry in value):
        return ", ".join(str(entry) for entry in value if entry is not None)
    return None if value is None else json.dumps(value, default=str, ensure_ascii=False)


def is_plain_integer(ids: pl.Series) -> bool:
    """Whether every id is an int64 written in the usual way: "7", not "007" or "+7"."""
    if ids.dtype.is_integer():
        return True
    integers = ids.cast(pl.Int64, strict=False)
    return not integers.has_nulls() and bool((integers.cast(pl.String) == ids).all())


def parse_times(times: pl.Series) -> pl.Series:
    """Timestamps as Int64, or Float64 where there are fractions; dates become Unix seconds; unreadable ones null."""
    if times.dtype.is_integer():
        return times.cast(pl.Int64, strict=False)
    if times.dtype in (pl.Date, pl.Datetime):
        if getattr(times.dtype, "time_zone", None):
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _seconds(times.cast(pl.Datetime("us")))
    if times.dtype.is_float():
        return _whole(times)
    text = times.cast(pl.String).str.strip_chars()
    integers = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count():
        return integers
    numbers, dates = _whole(text.cast(pl.Float64, strict=False)), _parse_dates(text)
    if dates.count() > numbers.count():  # what is no date among dates, such as 0 or nan, says that there is none
        return _seconds(dates)
    return integers if integers.count() == numbers.count() else numbers


def _parse_dates(text: pl.Series) -> pl.Series:
    plain = text.str.replace("T", " ", literal=True).str.replace(r"(Z|\+00:00)$", "")
    parsed = pl.Series(text.name, [None] * text.len(), dtype=pl.Datetime("us"))
    for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d"):
        attempt = plain.str.to_datetime(form, strict=False, time_unit="us")
        parsed = parsed.zip_with(parsed.is_not_null(), attempt)
    return parsed


def _seconds(times: pl.Series) -> pl.Series:
    microseconds = times.dt.epoch("us")
    return _whole(microseconds.cast(pl.Float64) / 1e6)


def _whole(numbers: pl.Series) -> pl.Series:
    finite = numbers.set(~numbers.is_finite().fill_null(True), None)
    fractions = (finite != finite.round()).fill_null(False).any()
    return finite if fractions else finite.cast(pl.Int64, strict=False)


def numeric(values: pl.Series, report: DataReport) -> pl.Series:
    """A text column as numbers where most of it is numbers (the rest missing, and counted); else as it is."""
    if values.dtype != pl.String:
        return values
    integers = values.cast(pl.Int64, strict=False)
    if integers.null_count() == 0:
        return integers
    numbers = values.cast(pl.Float64, strict=False)
    failed = numbers.null_count() - values.null_count()
    if failed > (values.len() - values.null_count()) // 2:
        return values
    report.add("values_not_numbers", failed)
    return numbers.fill_null(float("nan"))
