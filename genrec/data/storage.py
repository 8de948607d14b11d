"""The canonical folder: a cleaned data set as Parquet files that are read back as they were written."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.annotations import accepts, checkable
from genrec.artifacts import atomic_path, read_json, write_json
from genrec.contracts import GenrecError
from genrec.data.interactions import (
    ITEM_ID,
    TEXT,
    TIMESTAMP,
    TITLE,
    USER_ID,
    DataReport,
    InteractionLog,
    SourceData,
    column_array,
    encode,
    id_array,
)
from genrec.data.tables import UNREADABLE, checked_times, in_brief
from genrec.remote.addresses import below, is_remote
from genrec.remote.uploads import written

logger = logging.getLogger("genrec.data")

FORMAT_VERSION = 1
INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE = "interactions.parquet", "items.parquet", "users.parquet"
_TABLES = (INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE)
VECTORS_FILE, DESCRIPTION_FILE = "item_vectors.npy", "dataset.json"
_REPORT = {"counts": dict[str, int], "notes": list[str]}


def save_folder(
    data: SourceData,
    folder: Path | str,
    *,
    name: str,
    vectors: np.ndarray | None = None,
    origin: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Writes the canonical folder; ``dataset.json`` comes last, so an interrupted call leaves none.

    ``vectors`` (N, D) are kept beside it, row i for item i. ``origin`` says what the data were made from. ``folder``
    may be an address, for which ``storage_options`` are: then it is made here and put there.
    """
    if is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="genrec-") as made:
            save_folder(data, Path(made), name=name, vectors=vectors, origin=origin)
            files = [file for file in (*_TABLES, VECTORS_FILE, DESCRIPTION_FILE) if Path(made, file).exists()]
            for file in files:
                with written(below(folder, file), storage_options) as temporary:
                    shutil.copyfile(Path(made, file), temporary)
        return
    folder, log = Path(folder), data.log
    if data.relations:
        logger.warning("%s: the relations %s are not saved", folder, ", ".join(sorted(data.relations)))
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
    tables = {
        INTERACTIONS_FILE: log.frame(),
        ITEMS_FILE: _with_ids(log.item_table, ITEM_ID, log.item_ids),
        USERS_FILE: _with_ids(log.user_table, USER_ID, log.user_ids),
    }
    for file, table in tables.items():
        with atomic_path(folder / file) as temporary:
            table.write_parquet(temporary)
    if vectors is not None:
        if len(vectors) != log.num_items:
            raise GenrecError(f"{len(vectors)} item vectors were given for {log.num_items} items.")
        with atomic_path(folder / VECTORS_FILE) as temporary:
            np.save(temporary, vectors, allow_pickle=False)
    description = {
        "format": FORMAT_VERSION,
        "name": name,
        "num_users": log.num_users,
        "num_items": log.num_items,
        "num_interactions": len(log),
        "columns": log.columns,
        "report": {"counts": data.report.counts, "notes": data.report.notes},
        "origin": dict(origin or {}),
    }
    write_json(folder / DESCRIPTION_FILE, description)


def is_saved(folder: Path, origin: Mapping[str, Any] | None = None) -> bool:
    """Whether a canonical folder lies there, made from ``origin`` when that is given."""
    path = Path(folder) / DESCRIPTION_FILE
    return path.is_file() and (origin is None or read_json(path, dict).get("origin") == dict(origin))


def load_folder(folder: Path) -> SourceData:
    """Reads what ``save_folder`` wrote, indices and order included; rows are not cleaned again."""
    folder = Path(folder)
    path = folder / DESCRIPTION_FILE
    description = read_json(path)
    report = description.get("report", {}) if isinstance(description, dict) else None
    if not isinstance(report, dict) or not all(
        name not in report or accepts(checkable(kind), report[name]) for name, kind in _REPORT.items()
    ):
        raise GenrecError(f"{path} describes no data set. Remove it to have the folder read as plain tables.")
    if description.get("format") != FORMAT_VERSION:
        raise GenrecError(
            f"{path} says format {description.get('format')!r}; this version of genrec reads {FORMAT_VERSION}. "
            "Remove that file to have the folder read as plain tables."
        )
    frame, items, users = (_read(folder / file) for file in (INTERACTIONS_FILE, ITEMS_FILE, USERS_FILE))
    _check_columns(folder, frame, items, users)
    user_codes, item_codes = encode(frame[USER_ID], users[USER_ID]), encode(frame[ITEM_ID], items[ITEM_ID])
    sizes = {"num_users": users.height, "num_items": items.height, "num_interactions": frame.height}
    changed = [f"{key} is {size}" for key, size in sizes.items() if description.get(key) != size]
    if changed or min(user_codes.min(initial=0), item_codes.min(initial=0)) < 0 or (np.diff(user_codes) < 0).any():
        found = f" ({', '.join(changed)})" if changed else ""
        raise GenrecError(
            f"{folder}: the tables were changed after {DESCRIPTION_FILE} was written{found}. "
            f"Remove {DESCRIPTION_FILE} to have them read as plain tables."
        )
    known = (USER_ID, ITEM_ID, TIMESTAMP)
    log = InteractionLog(
        users=user_codes,
        items=item_codes,
        user_ids=id_array(users[USER_ID]),
        item_ids=id_array(items[ITEM_ID]),
        timestamps=column_array(frame[TIMESTAMP]) if TIMESTAMP in frame.columns else None,
        extras={name: column_array(frame[name]) for name in frame.columns if name not in known},
        item_table=items if items.width > 1 else None,
        user_table=users if users.width > 1 else None,
    )
    return SourceData(log, DataReport(report.get("counts", {}), report.get("notes", [])), folder)


def _check_columns(folder: Path, frame: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame) -> None:
    """Raises for tables that ``save_folder`` would not have written."""
    ids = (pl.Int64, pl.String)
    wanted = [(users, USER_ID), (frame, USER_ID), (items, ITEM_ID), (frame, ITEM_ID)]
    types = [table.schema.get(name) for table, name in wanted]
    whole = types[0] == types[1] and types[2] == types[3] and all(kind in ids for kind in types)
    times = frame.schema.get(TIMESTAMP, pl.Int64())
    shown = [items.schema.get(name, pl.String()) for name in (TITLE, TEXT)]
    if not whole or not times.is_numeric() or any(kind.is_nested() for kind in (*frame.schema.values(), *shown)):
        raise GenrecError(
            f"{folder}: the tables are not as genrec wrote them: ids must be Int64 or String in all of them, times "
            f"numbers, titles text. Remove {DESCRIPTION_FILE} to have them read as plain tables."
        )


def _read(path: Path) -> pl.DataFrame:
    try:
        return checked_times(pl.read_parquet(path), path)
    except UNREADABLE as error:
        raise GenrecError(f"{path} is missing or unreadable ({in_brief(error)}). Make the folder again.") from None


def _with_ids(table: pl.DataFrame | None, name: str, ids: np.ndarray) -> pl.DataFrame:
    column = pl.DataFrame({name: ids})
    return column if table is None else column.hstack(table.drop(name, strict=False))
