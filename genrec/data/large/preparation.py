"""From tables of any size to arrays on disk, in passes that each hold a part of the rows in memory.

1. Ids are counted; users are divided into partitions of about equally many rows.
2. All rows go to the Parquet file of their user's partition, with codes in place of ids.
3. Each partition is sorted by user, time and stored order, and freed of duplicates.
4. Users and items with too few rows are dropped until none is left that has too few.
5. Partitions are written one after the other into flat arrays.

Passes 1 to 3 leave files behind which a preparation that was killed goes on from. What is held in memory whole are the
ids of users and items and their counts. The result is that of ``genrec.data.cleaning.build_log``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from genrec.artifacts import atomic_path, read_json, write_json
from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, aligned, as_one_kind, clean_table, item_vocabulary
from genrec.data.interactions import ITEM_ID, TIMESTAMP, USER_ID, DataReport, is_sorted
from genrec.data.large.arrays import array_file, open_array, save_array, save_ids
from genrec.data.large.reading import OTHERS, ROW, LogFiles, Typed, typed
from genrec.data.tables import UNREADABLE
from genrec.progress import Bar

logger = logging.getLogger("genrec.data")

USERS, ITEMS, TIMES, OFFSETS = "users.npy", "items.npy", "timestamps.npy", "offsets.npy"
USER_IDS, ITEM_IDS = "user_ids.npy", "item_ids.npy"
ITEM_TABLE, USER_TABLE, DESCRIPTION = "items.parquet", "users.parquet", "description.json"
_USER, _ITEM, _PART = "user", "item", "part"
_WORK = "work"


@dataclass(frozen=True)
class Rules:
    """What is done to the rows: ``cleaning``, ``min_rating``, and ``partition_rows`` rows at most are sorted at once
    (unless one user has more)."""

    cleaning: Cleaning
    min_rating: float | None = None
    partition_rows: int = 2_000_000


def prepare(
    files: LogFiles,
    folder: Path,
    rules: Rules,
    *,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    progress: bool = True,
) -> None:
    """Writes the arrays and tables of a log into ``folder``; ``description.json`` is the last file."""
    work = folder / _WORK
    report, seconds = DataReport(), {}
    with _timed(seconds, "ids"):
        rows = typed(files, rules.min_rating, report)
        item_table, user_table = clean_table(items, ITEM_ID, report), clean_table(users, USER_ID, report)
        rows, item_table = _one_kind(rows, item_table, ITEM_ID)
        rows, user_table = _one_kind(rows, user_table, USER_ID)
        parts = _counted(files, rows, work, rules.partition_rows)
    with _timed(seconds, "partitions"):
        parts.scatter(files, rows)
    with _timed(seconds, "sorting"):
        parts.sort(duplicates=rules.cleaning.drop_duplicates, progress=progress)
    with _timed(seconds, "arrays"):
        report.add("duplicate_rows", rows.count - parts.num_rows)
        kept = _kept(parts, rules.cleaning, item_table, report)
        _write(parts, kept, folder, item_table, user_table, rules.cleaning, report)
    write_json(
        folder / DESCRIPTION,
        {
            "report": {"counts": report.counts, "notes": report.notes},
            "fingerprint": _content(folder),
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "partitions": len(parts.names),
        },
    )
    shutil.rmtree(work, ignore_errors=True)


def _one_kind(rows: Typed, table: pl.DataFrame | None, name: str) -> tuple[Typed, pl.DataFrame | None]:
    """Ids of rows and table both as int64, where all of both are plain integers, else as strings."""
    kind, table = as_one_kind(rows.plain[name], table, name)
    return Typed(rows.frame.with_columns(pl.col(name).cast(kind)), rows.count, rows.plain), table


def _counted(files: LogFiles, rows: Typed, work: Path, partition_rows: int) -> Partitions:
    """The ids with their numbers of rows, in their order, and the partition of each user."""
    if not rows.count:
        raise GenrecError(f"{files.paths[0]}: no row has a user, an item and, where there are times, a readable one.")
    for name, file in ((USER_ID, USER_TABLE), (ITEM_ID, ITEM_TABLE)):
        if not (work / file).exists():
            found = files.collected(rows.frame.group_by(name).len()).sort(name)
            found = found.with_row_index("code")
            found = found.with_columns(partition_of(found["len"], partition_rows)) if name == USER_ID else found
            with atomic_path(work / file) as unfinished:
                found.write_parquet(unfinished)
    return Partitions(work, has_times=TIMESTAMP in rows.frame.collect_schema())


def partition_of(counts: pl.Series, partition_rows: int) -> pl.Series:
    """The partition (users,) of each user, by the ``counts`` of their rows: in order, ``partition_rows`` or so each."""
    last = counts.cast(pl.Int64).cum_sum()  # products with the number of partitions overflow 32 bits
    rows = int(last[-1])
    partitions = -(-rows // partition_rows)
    return ((last - 1) * partitions // rows).cast(pl.UInt32).alias(_PART)


@dataclass(frozen=True)
class Partitions:
    """Rows of users in consecutive partitions, below ``folder``, with codes of users and items in place of ids."""

    folder: Path
    has_times: bool

    @cached_property
    def users(self) -> pl.DataFrame:
        """``user_id``, its ``code``, how many rows (``len``), and its partition (``part``), in order of id."""
        return _read(self.folder / USER_TABLE)

    @cached_property
    def items(self) -> pl.DataFrame:
        """``item_id``, its ``code`` and how many rows (``len``), in order of id."""
        return _read(self.folder / ITEM_TABLE)

    @property
    def names(self) -> list[int]:
        return self.users[_PART].unique().sort().to_list()

    def sorted_file(self, name: int) -> Path:
        return self.folder / f"part-{name:05d}.parquet"

    def scatter(self, files: LogFiles, rows: Typed) -> None:
        """Pass 2; what an earlier call has finished is left as it is."""
        mark, folder = self.folder / "scattered.json", self.folder / "rows"
        if mark.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        coded = rows.frame.join(_coded(self.users, _USER, _PART), on=USER_ID, how="left")
        coded = coded.join(_coded(self.items, _ITEM), on=ITEM_ID, how="left")
        partition = pl.PartitionBy(folder, key=_PART, include_key=False, approximate_bytes_per_file=None)
        try:
            coded.drop(USER_ID, ITEM_ID).sink_parquet(
                partition, mkdir=True, engine="streaming", compression="lz4", maintain_order=False
            )
        except UNREADABLE as error:
            raise files.unreadable(error) from None
        write_json(mark, {"rows": rows.count})

    def sort(self, *, duplicates: bool, progress: bool) -> None:
        """Pass 3, partition by partition."""
        names = self.names
        bar = Bar("Sorting interactions", len(names), enabled=progress)
        for name in names:
            target = self.sorted_file(name)
            if not target.exists():
                source = self.folder / "rows" / f"{_PART}={name}"
                frame = pl.read_parquet(source, hive_partitioning=False)
                with atomic_path(target) as unfinished:
                    self._ordered(frame, duplicates=duplicates).write_parquet(unfinished, compression="lz4")
            bar.advance()
        bar.close()
        shutil.rmtree(self.folder / "rows", ignore_errors=True)

    def _ordered(self, frame: pl.DataFrame, *, duplicates: bool) -> pl.DataFrame:
        times = [TIMESTAMP] if self.has_times else []
        if duplicates and self.has_times:  # without times a repetition may be a second visit
            same = [_USER, TIMESTAMP, _ITEM, OTHERS]
            frame = frame.sort(*same, ROW)
            repeated = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in same)
            frame = frame.filter(~repeated.fill_null(False))
        return frame.sort(_USER, *times, ROW).select(_USER, _ITEM, *times)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return (_read(self.sorted_file(name)) for name in self.names)

    @cached_property
    def num_rows(self) -> int:
        return sum(pl.scan_parquet(self.sorted_file(name)).select(pl.len()).collect().item() for name in self.names)

    def codes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The codes of users and items of each partition."""
        for name in self.names:
            frame = pl.read_parquet(self.sorted_file(name), columns=[_USER, _ITEM])
            yield frame[_USER].to_numpy(), frame[_ITEM].to_numpy()

    def counted(self, kept: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """How many rows are kept of each user and of each item."""
        users, items = np.zeros(self.users.height, np.int64), np.zeros(self.items.height, np.int64)
        for (user, item), keep in zip(self.codes(), kept, strict=True):
            users += np.bincount(user[keep], minlength=len(users))
            items += np.bincount(item[keep], minlength=len(items))
        return users, items


def _coded(table: pl.DataFrame, name: str, *others: str) -> pl.LazyFrame:
    return table.lazy().select(table.columns[1], pl.col("code").alias(name), *others)


def _kept(
    parts: Partitions, cleaning: Cleaning, item_table: pl.DataFrame | None, report: DataReport
) -> list[np.ndarray]:
    """Pass 4: which rows of each partition are kept."""
    kept = [np.ones(len(user), dtype=bool) for user, _ in parts.codes()]
    users, items = parts.counted(kept)
    if item_table is not None:
        known = parts.items[ITEM_ID].is_in(item_table[ITEM_ID].implode()).to_numpy()
        met = parts.items[ITEM_ID].filter(pl.Series(items > 0))
        report.add("unused_items", int((~item_table[ITEM_ID].is_in(met.implode())).sum()))
        _tell_unknown(parts, known, items, cleaning, report)
        if cleaning.unknown_items == "drop" and not known.all():
            kept = [keep & known[item] for (_, item), keep in zip(parts.codes(), kept, strict=True)]
            users, items = parts.counted(kept)
    least = (cleaning.min_user_interactions, cleaning.min_item_interactions)
    if max(least) <= 1:
        return kept
    before, rows = (users > 0, items > 0), int(users.sum())
    while True:
        total = int(users.sum())
        kept = [keep & (users[user] >= least[0]) for (user, _), keep in zip(parts.codes(), kept, strict=True)]
        _, items = parts.counted(kept)
        kept = [keep & (items[item] >= least[1]) for (_, item), keep in zip(parts.codes(), kept, strict=True)]
        users, items = parts.counted(kept)
        if int(users.sum()) == total:
            break
    report.add("rows_filtered", rows - int(users.sum()))
    report.add("users_filtered", int((before[0] & (users == 0)).sum()))
    report.add("items_filtered", int((before[1] & (items == 0)).sum()))
    return kept


def _tell_unknown(
    parts: Partitions, known: np.ndarray, items: np.ndarray, cleaning: Cleaning, report: DataReport
) -> None:
    unknown = ~known & (items > 0)
    if not unknown.any():
        return
    if cleaning.unknown_items == "error":
        example = parts.items[ITEM_ID][int(np.flatnonzero(unknown)[0])]
        raise GenrecError(
            f"{int(unknown.sum())} items of the interactions are not in the item table, for example {example!r}. "
            "Complete the table, or set unknown_items=keep (empty text) or drop."
        )
    report.add("unknown_items", int(unknown.sum()))
    report.add("rows_of_unknown_items", int(items[unknown].sum()))


def _write(
    parts: Partitions,
    kept: list[np.ndarray],
    folder: Path,
    item_table: pl.DataFrame | None,
    user_table: pl.DataFrame | None,
    cleaning: Cleaning,
    report: DataReport,
) -> None:
    """Pass 5."""
    users, items = parts.counted(kept)
    total = int(users.sum())
    if not total:
        found = "\n  ".join(report.lines())
        raise GenrecError(f"No interaction is left after cleaning:\n  {found}")
    user_ids = parts.users[USER_ID].filter(pl.Series(users > 0))
    met = parts.items[ITEM_ID].filter(pl.Series(items > 0))
    item_ids = item_vocabulary(met, item_table, cleaning)
    if user_table is not None:
        report.add("empty_users", int((~user_table[USER_ID].is_in(user_ids.implode())).sum()))
    new_user = np.cumsum(users > 0) - 1
    new_item = _positions(parts.items[ITEM_ID], item_ids)
    times = np.float64 if parts.has_times and _time_type(parts) == pl.Float64 else np.int64
    with (
        array_file(folder / USERS, total, np.int32) as user_file,
        array_file(folder / ITEMS, total, np.int32) as item_file,
        array_file(folder / TIMES, total if parts.has_times else 0, times) as time_file,
    ):
        latest = -1
        for frame, keep in zip(parts, kept, strict=True):
            of_rows = new_user[frame[_USER].to_numpy()[keep]]
            if len(of_rows) and (of_rows[0] < latest or not is_sorted(of_rows)):
                raise RuntimeError("the partitions of a large log are not in the order of its users")
            latest = of_rows[-1] if len(of_rows) else latest
            user_file.write(of_rows)
            item_file.write(new_item[frame[_ITEM].to_numpy()[keep]])
            if parts.has_times:
                time_file.write(frame[TIMESTAMP].to_numpy()[keep])
    save_array(folder / OFFSETS, np.concatenate([[0], np.cumsum(users[users > 0])]))
    save_ids(folder / USER_IDS, user_ids)
    save_ids(folder / ITEM_IDS, item_ids)
    for table, ids, name, file in (
        (item_table, item_ids, ITEM_ID, ITEM_TABLE),
        (user_table, user_ids, USER_ID, USER_TABLE),
    ):
        if table is not None:
            with atomic_path(folder / file) as unfinished:
                aligned(table, ids, name).write_parquet(unfinished)
    report.counts.update(users=len(user_ids), items=len(item_ids), interactions=total)


def _positions(ids: pl.Series, vocabulary: pl.Series) -> np.ndarray:
    """(ids,) the place of each id in the vocabulary, 0 for those that are not in it, of which no row is left."""
    places = pl.DataFrame({"id": vocabulary}).with_row_index("place")
    joined = pl.DataFrame({"id": ids}).join(places, on="id", how="left", maintain_order="left")
    return joined["place"].fill_null(0).to_numpy()


def _time_type(parts: Partitions) -> pl.DataType:
    return pl.scan_parquet(parts.sorted_file(parts.names[0])).collect_schema()[TIMESTAMP]


def _content(folder: Path) -> str:
    """A hash of everything that a run can learn from the prepared log."""
    digest = hashlib.sha256()
    for file in (OFFSETS, ITEMS, TIMES, USER_IDS, ITEM_IDS):
        array = open_array(folder / file)
        digest.update(json.dumps([file, array.dtype.str, len(array)]).encode())
        digest.update(np.asarray(array).view(np.uint8).data)
    if (folder / ITEM_TABLE).exists():
        table = pl.read_parquet(folder / ITEM_TABLE)
        for name in table.columns:
            digest.update(name.encode())
            digest.update(table[name].hash(seed=0).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except UNREADABLE as error:
        raise GenrecError(f"{path} is torn ({error}). Remove {path.parent.parent}, and it is made again.") from None


def description(folder: Path) -> dict:
    """What ``prepare`` says of the log in ``folder``."""
    return read_json(folder / DESCRIPTION)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begun
    logger.info("large log: %s in %.1f s", name, seconds[name])
