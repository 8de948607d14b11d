"""From a table of raw rows to an interaction log: ids made exact and contiguous, faults counted, thin data filtered."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from genrec.contracts import GenrecError
from genrec.data.interactions import (
    ITEM_ID,
    TIMESTAMP,
    USER_ID,
    DataReport,
    InteractionLog,
    column_array,
    encode,
    id_array,
)
from genrec.data.parsing import exact_ids, is_plain_integer, numeric, parse_times

_ROW = "__row"


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """The rules of cleaning.

    ``min_user_interactions`` and ``min_item_interactions`` are applied in turn until both hold (a k-core when equal).
    ``unknown_items``: rows of items that the item table lacks are kept (with empty text), dropped, or an error.
    ``unused_items``: items of the table without an interaction (after the minimum counts) stay in the catalogue
    ("keep": the table is the catalogue) or are dropped from it.
    """

    min_user_interactions: int = 1
    min_item_interactions: int = 1
    drop_duplicates: bool = True
    unknown_items: str = "keep"
    unused_items: str = "drop"

    def __post_init__(self) -> None:
        for name, allowed in (("unknown_items", ("keep", "drop", "error")), ("unused_items", ("keep", "drop"))):
            if getattr(self, name) not in allowed:
                raise GenrecError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name in ("min_user_interactions", "min_item_interactions"):
            if getattr(self, name) < 1:
                raise GenrecError(f"{name} must be at least 1, got {getattr(self, name)}.")


def build_log(
    frame: pl.DataFrame,
    *,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    cleaning: Cleaning | None = None,
    report: DataReport | None = None,
) -> tuple[InteractionLog, DataReport]:
    """Cleans rows with the columns ``user_id``, ``item_id`` and perhaps ``timestamp`` and more into a log.

    ``items`` and ``users`` are tables with an id column. Items keep the order of their table, unknown ones follow in
    order of id; without a table items are ordered by id, and users always are. Everything dropped is counted.
    """
    cleaning = cleaning or Cleaning()
    report = report or DataReport()
    report.add("rows_read", frame.height)
    frame = frame.with_row_index(_ROW)
    frame = _drop_missing_ids(frame, report)
    frame = _parse_timestamps(frame, report)
    if cleaning.drop_duplicates and TIMESTAMP in frame.columns:  # without times a repetition may be a second visit
        before = frame.height
        frame = frame.unique(subset=[name for name in frame.columns if name != _ROW], keep="first", maintain_order=True)
        report.add("duplicate_rows", before - frame.height)
    items = clean_table(items, ITEM_ID, report)
    users = clean_table(users, USER_ID, report)
    frame, items = _align_id_types(frame, items, ITEM_ID)
    frame, users = _align_id_types(frame, users, USER_ID)
    frame = _check_unknown_items(frame, items, cleaning, report)
    frame = filter_counts(frame, cleaning, report)
    if not frame.height:
        found = "\n  ".join(report.lines()) or "rows read: 0"
        raise GenrecError(f"No interaction is left after cleaning:\n  {found}")
    return _assemble(frame, items, users, cleaning, report), report


def with_items(log: InteractionLog, items: pl.DataFrame, report: DataReport) -> InteractionLog:
    """The log with an item table that was read later; items the table lacks are counted and stay without text."""
    table = clean_table(items, ITEM_ID, report)
    assert table is not None
    ids = pl.Series(ITEM_ID, log.item_ids)
    table = table.with_columns(pl.col(ITEM_ID).cast(ids.dtype, strict=False))
    unknown = ~ids.is_in(table[ITEM_ID].implode())
    report.add("unknown_items", int(unknown.sum()))
    report.add("rows_of_unknown_items", int(unknown.to_numpy()[log.items].sum()))
    return replace(log, item_table=aligned(table, ids, ITEM_ID))


def _drop_missing_ids(frame: pl.DataFrame, report: DataReport) -> pl.DataFrame:
    for name, count in ((USER_ID, "rows_missing_user"), (ITEM_ID, "rows_missing_item")):
        frame = frame.with_columns(exact_ids(frame[name], name))
        missing = frame[name].is_null()
        report.add(count, int(missing.sum()))
        frame = frame.filter(~missing)
    return frame


def _parse_timestamps(frame: pl.DataFrame, report: DataReport) -> pl.DataFrame:
    if TIMESTAMP not in frame.columns:
        report.notes.append("No timestamps: the stored order of the rows is taken for the time order.")
        return frame
    times = parse_times(frame[TIMESTAMP])
    missing = times.is_null()
    if frame.height and missing.all():
        given = _given(frame[TIMESTAMP])
        if given.len():
            example = given[0]
            raise GenrecError(
                f"No timestamp can be read, for example {example!r}. Allowed: numbers (such as Unix seconds), "
                "2014-07-23, 2014-07-23 12:30:00, 2014-07-23T12:30:00Z."
            )
        report.notes.append("The timestamp column is empty: the stored order of the rows is taken for the time order.")
        return frame.drop(TIMESTAMP)
    report.add("rows_bad_timestamp", int(missing.sum()))
    if missing.any():
        lines = (frame[_ROW].filter(missing).head(3) + 1).to_list()
        report.notes.append(f"First rows without a readable timestamp: {', '.join(map(str, lines))}.")
    return frame.with_columns(times.alias(TIMESTAMP)).filter(~missing)


def _given(values: pl.Series) -> pl.Series:
    """The values that say anything: neither missing nor, in text, blank."""
    values = values.drop_nulls()
    return values.filter(values.str.strip_chars() != "") if values.dtype == pl.String else values


def clean_table(table: pl.DataFrame | None, name: str, report: DataReport) -> pl.DataFrame | None:
    """A table of items or users with exact ids, each once."""
    if table is None:
        return None
    table = table.with_columns(exact_ids(table[name], name)).select(name, pl.exclude(name))
    known = table.filter(pl.col(name).is_not_null())
    unique = known.unique(subset=[name], keep="first", maintain_order=True)
    if name == ITEM_ID:
        report.add("items_missing_id", table.height - known.height)
        report.add("duplicate_item_rows", known.height - unique.height)
    return unique


def _align_id_types(
    frame: pl.DataFrame, table: pl.DataFrame | None, name: str
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Both columns int64 where every id is an integer written in the usual way ("7", not "007"), else both strings."""
    kind, table = as_one_kind(is_plain_integer(frame[name]), table, name)
    return frame.with_columns(pl.col(name).cast(kind)), table


def as_one_kind(
    plain: bool, table: pl.DataFrame | None, name: str
) -> tuple[type[pl.Int64] | type[pl.String], pl.DataFrame | None]:
    """The type that ids of rows and of their ``table`` share, and the table with it: int64 where those of the rows are
    ``plain`` integers and those of the table too."""
    kind = pl.Int64 if plain and (table is None or is_plain_integer(table[name])) else pl.String
    return kind, None if table is None else table.with_columns(pl.col(name).cast(kind))


def _check_unknown_items(
    frame: pl.DataFrame, items: pl.DataFrame | None, cleaning: Cleaning, report: DataReport
) -> pl.DataFrame:
    if items is None:
        return frame
    report.add("unused_items", int((~items[ITEM_ID].is_in(frame[ITEM_ID].implode())).sum()))
    known = frame[ITEM_ID].is_in(items[ITEM_ID].implode())
    unknown = frame[ITEM_ID].filter(~known)
    if not unknown.len():
        return frame
    count = unknown.n_unique()
    if cleaning.unknown_items == "error":
        raise GenrecError(
            f"{count} items of the interactions are not in the item table, for example {unknown[0]!r}. "
            "Complete the table, or set unknown_items=keep (empty text) or drop."
        )
    report.add("unknown_items", count)
    report.add("rows_of_unknown_items", unknown.len())
    return frame.filter(known) if cleaning.unknown_items == "drop" else frame


def filter_counts(frame: pl.DataFrame, cleaning: Cleaning, report: DataReport) -> pl.DataFrame:
    """Drops users and items with too few rows until none is left that has too few."""
    minimum = {USER_ID: cleaning.min_user_interactions, ITEM_ID: cleaning.min_item_interactions}
    if max(minimum.values()) <= 1 or not frame.height:
        return frame
    codes = {name: encode(frame[name], frame[name].unique(maintain_order=True)) for name in minimum}
    keep = np.ones(frame.height, dtype=bool)
    while True:
        before = int(keep.sum())
        for name, code in codes.items():
            counts = np.bincount(code[keep], minlength=int(code.max()) + 1)
            keep &= counts[code] >= minimum[name]
        if int(keep.sum()) == before:
            break
    report.add("rows_filtered", int((~keep).sum()))
    for name, count in ((USER_ID, "users_filtered"), (ITEM_ID, "items_filtered")):
        report.add(count, len(np.unique(codes[name])) - len(np.unique(codes[name][keep])))
    return frame.filter(pl.Series(keep))


def _assemble(
    frame: pl.DataFrame,
    items: pl.DataFrame | None,
    users: pl.DataFrame | None,
    cleaning: Cleaning,
    report: DataReport,
) -> InteractionLog:
    item_ids = item_vocabulary(frame[ITEM_ID].unique().sort(), items, cleaning)
    user_ids = frame[USER_ID].unique().sort()
    if users is not None:
        report.add("empty_users", int((~users[USER_ID].is_in(user_ids.implode())).sum()))
    user_codes, item_codes = encode(frame[USER_ID], user_ids), encode(frame[ITEM_ID], item_ids)
    times = column_array(frame[TIMESTAMP]) if TIMESTAMP in frame.columns else None
    order = np.lexsort((user_codes,) if times is None else (times, user_codes))  # stable: stored order breaks ties
    names = [name for name in frame.columns if name not in (_ROW, USER_ID, ITEM_ID, TIMESTAMP)]
    log = InteractionLog(
        users=user_codes[order],
        items=item_codes[order],
        user_ids=id_array(user_ids),
        item_ids=id_array(item_ids),
        timestamps=None if times is None else times[order],
        extras={name: column_array(numeric(frame[name], report))[order] for name in names},
        item_table=None if items is None else aligned(items, item_ids, ITEM_ID),
        user_table=None if users is None else aligned(users, user_ids, USER_ID),
    )
    for name, count in (("users", log.num_users), ("items", log.num_items), ("interactions", len(log))):
        report.counts[name] = count
    return log


def item_vocabulary(met: pl.Series, items: pl.DataFrame | None, cleaning: Cleaning) -> pl.Series:
    """The ids of the catalogue in its order, given the ids of all interactions, sorted, and the table of items."""
    if items is None:
        return met
    table = items[ITEM_ID]
    listed = table if cleaning.unused_items == "keep" else table.filter(table.is_in(met.implode()))
    return pl.concat([listed, met.filter(~met.is_in(table.implode()))])


def aligned(table: pl.DataFrame, ids: pl.Series, name: str) -> pl.DataFrame:
    """The table with one row for each of ``ids``, in their order."""
    return pl.DataFrame({name: ids}).join(table, on=name, how="left", maintain_order="left")
