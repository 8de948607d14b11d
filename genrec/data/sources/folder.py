"""Any data of your own: a table of interactions, perhaps with tables of items and users, or a canonical folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log
from genrec.data.download import missing_files
from genrec.data.interactions import ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID, DataReport, SourceData
from genrec.data.parsing import flattened
from genrec.data.storage import DESCRIPTION_FILE, VECTORS_FILE, is_saved, load_folder
from genrec.data.tables import (
    SUFFIXES,
    find_table,
    joined_text,
    map_columns,
    nearest_columns,
    read_table,
    table_suffix,
)
from genrec.remote.addresses import below, has_magic, is_remote, name_of, shown
from genrec.remote.copies import DEFAULT_CACHE, localised, localised_folder

Columns = Mapping[str, str] | Sequence[str]


class FolderSource:
    """Interactions from ``path``: a file, or a folder with ``interactions.*`` and perhaps ``items.*``, ``users.*``.

    ``columns`` maps our names to the file's (``{user_id: uid, item_id: asin, timestamp: ts}``); as a list it names the
    columns of a file without a header line. ``items_columns`` and ``users_columns`` do the same for the other tables.
    ``text_columns`` are the item columns that make the text for encoders, joined by ". ". A folder that
    ``save_folder`` wrote is read as it is. Each may be an address of a remote store, which ``storage_options`` belong
    to; copies lie below ``cache_dir``.
    """

    def __init__(
        self,
        *,
        path: str,
        columns: dict[str, str] | list[str] | None = None,
        items_path: str | None = None,
        items_columns: dict[str, str] | list[str] | None = None,
        text_columns: list[str] | None = None,
        users_path: str | None = None,
        users_columns: dict[str, str] | list[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        min_rating: float | None = None,
        min_user_interactions: int = 1,
        min_item_interactions: int = 1,
        drop_duplicates: bool = True,
        unknown_items: str = "keep",
        unused_items: str = "drop",
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        self.path = path
        self.storage_options = storage_options
        self.cache_dir = cache_dir
        self.columns = columns
        self.items_path = items_path
        self.items_columns = items_columns
        self.text_columns = text_columns
        self.users_path = users_path
        self.users_columns = users_columns
        self.delimiter = delimiter
        self.encoding = encoding
        self.min_rating = min_rating
        self.cleaning = Cleaning(
            min_user_interactions=min_user_interactions,
            min_item_interactions=min_item_interactions,
            drop_duplicates=drop_duplicates,
            unknown_items=unknown_items,
            unused_items=unused_items,
        )

    @property
    def name(self) -> str:
        name = name_of(self.path) if is_remote(self.path) else Path(self.path).name
        return name.split(".")[0] or "folder"

    def load(self) -> SourceData:
        """Reads and cleans the tables."""
        place = self._place
        if not place.exists():
            raise missing_files(place, "your interactions", download=False)
        if place.is_dir() and is_saved(place):
            self._refuse_options(place)
            return load_folder(place)
        report = DataReport()
        path = place if place.is_file() else self._interactions_file(place)
        frame = self._read(path, self.columns, "columns", (USER_ID, ITEM_ID))
        self._note_unused_time(frame, report)
        frame = self._above_min_rating(frame, path, report)
        items, users = self._items(), self._users()
        log, report = build_log(frame, items=items, users=users, cleaning=self.cleaning, report=report)
        return SourceData(log, report, path.parent)

    def _refuse_options(self, place: Path) -> None:
        """Raises where something is asked for that is not done to a saved folder."""
        signature = inspect.signature(FolderSource.__init__).parameters
        given = {**vars(self), **vars(self.cleaning)}
        changed = [name for name in signature if name in given and given[name] != signature[name].default]
        idle = [f"{name}={given[name]}" for name in changed if name not in ("path", "storage_options", "cache_dir")]
        if idle:
            raise GenrecError(
                f"{place} was saved by genrec and is read as it is, so nothing comes of data.source {', '.join(idle)}. "
                f"Leave that out, or remove {DESCRIPTION_FILE} there to have the tables read and cleaned."
            )

    @cached_property
    def _place(self) -> Path:
        """The file or folder on this machine; of a remote folder only what is read is fetched."""
        if not is_remote(self.path):
            return Path(self.path)
        if has_magic(self.path):
            raise GenrecError(
                f"data.path={shown(self.path)}: data=folder reads one table of interactions, and this is a pattern of "
                "several. Give a file or a folder; data=table reads patterns."
            )
        if table_suffix(Path(name_of(self.path))) in SUFFIXES:
            return self._fetched(self.path)
        return localised_folder(self.path, self.cache_dir, self.storage_options, _worth_fetching)

    def _fetched(self, url: str) -> Path:
        return localised(url, self.cache_dir, self.storage_options)

    def _interactions_file(self, folder: Path) -> Path:
        found = find_table(folder, "interactions")
        if found is not None:
            return found
        tables = sorted(path for path in folder.iterdir() if path.is_file() and table_suffix(path) in SUFFIXES)
        others = [path for path in tables if path.name.split(".")[0] not in ("items", "users")]
        if len(others) == 1:
            return others[0]
        listing = ", ".join(path.name for path in sorted(folder.iterdir())[:12]) or "nothing"
        raise GenrecError(
            f"{folder} needs a table called interactions ({', '.join(SUFFIXES)}, each perhaps with .gz), or exactly "
            f"one table besides items and users; it holds {listing}. Rename the file, or give it as data.path=<file>."
        )

    def _read(self, path: Path, columns: Columns | None, key: str, required: tuple[str, ...]) -> pl.DataFrame:
        header = None
        mapping: Mapping[str, str] = {}
        if isinstance(columns, Mapping):
            mapping = columns
        elif columns is not None:
            header = list(columns)
        frame = read_table(path, header=header, delimiter=self.delimiter, encoding=self.encoding)
        frame = map_columns(frame, mapping, required=required, path=path, key=f"data.source.{key}")
        return flattened(frame, ids=required)

    def _beside(self, stem: str, given: str | None) -> Path | None:
        """The file of another table: the one given, or the one of that name in the folder."""
        place = self._place
        if given is None:
            return find_table(place, stem) if place.is_dir() else None
        if is_remote(given):
            return self._fetched(given)
        if not Path(given).exists() and is_remote(self.path) and place.is_dir():
            return self._fetched(below(self.path, given))
        path = Path(given) if Path(given).exists() or place.is_file() else place / given
        if not path.exists():
            raise GenrecError(f"data.source.{stem}_path={given} does not exist.")
        return path

    def _items(self) -> pl.DataFrame | None:
        path = self._beside("items", self.items_path)
        if path is None:
            if self.text_columns:
                raise GenrecError(
                    f"text_columns={list(self.text_columns)} needs a table of items: put items.csv (or another format) "
                    "beside the interactions, or give data.source.items_path."
                )
            return None
        items = self._read(path, self.items_columns, "items_columns", (ITEM_ID,))
        if not self.text_columns:
            return items
        missing = [name for name in self.text_columns if name not in items.columns]
        if missing:
            raise GenrecError(
                f"data.source.text_columns names {', '.join(missing)}, but {path} has {', '.join(items.columns)}."
            )
        if TITLE not in items.columns:  # the first text column is what people would read
            items = items.with_columns(pl.col(self.text_columns[0]).cast(pl.String).alias(TITLE))
        return joined_text(items, [pl.col(name) for name in self.text_columns])

    def _users(self) -> pl.DataFrame | None:
        path = self._beside("users", self.users_path)
        return None if path is None else self._read(path, self.users_columns, "users_columns", (USER_ID,))

    def _above_min_rating(self, frame: pl.DataFrame, path: Path, report: DataReport) -> pl.DataFrame:
        if self.min_rating is None:
            return frame
        if RATING not in frame.columns:
            raise GenrecError(
                f"min_rating={self.min_rating} needs a rating column; {path} has {', '.join(frame.columns)}. "
                "Name it with data.source.columns.rating, or set min_rating=null."
            )
        kept = frame.filter(pl.col(RATING).cast(pl.Float64, strict=False) >= self.min_rating)
        report.add("rows_below_min_rating", frame.height - kept.height)
        return kept

    @staticmethod
    def _note_unused_time(frame: pl.DataFrame, report: DataReport) -> None:
        near = [] if TIMESTAMP in frame.columns else nearest_columns(TIMESTAMP, frame.columns)
        if near:
            report.notes.append(
                f"The column {near[0]} may hold times; to use it: data.source.columns.timestamp={near[0]}."
            )


def _worth_fetching(names: list[str]) -> list[str]:
    """What of a remote folder is read: interactions, items and users, or the one table there is besides these two."""
    tables = [name for name in names if table_suffix(Path(name)) in SUFFIXES and name != DESCRIPTION_FILE]
    named = [name for name in tables if name.partition(".")[0] in ("interactions", "items", "users")]
    if any(name.startswith("interactions.") for name in named):
        return [*named, *(name for name in (DESCRIPTION_FILE, VECTORS_FILE) if name in names)]
    others = [name for name in tables if name not in named]
    if len(others) == 1:
        return tables
    listing = ", ".join(names[:12]) or "nothing"
    raise GenrecError(
        f"data.path needs a table called interactions ({', '.join(SUFFIXES)}, each perhaps with .gz), or exactly one "
        f"table besides items and users; the folder holds {listing}. Rename the file, or give it as data.path=<file>."
    )
