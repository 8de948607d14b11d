"""Tables of interactions of any size, prepared once into the cache."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from genrec.annotations import Count, check_arguments
from genrec.artifacts import Cache, fingerprint
from genrec.contracts import GenrecError
from genrec.data.interactions import DataReport, InteractionLog, SourceData
from genrec.data.large.arrays import open_array
from genrec.data.large.preparation import (
    ITEM_IDS,
    ITEM_TABLE,
    ITEMS,
    TIMES,
    USER_IDS,
    USER_TABLE,
    USERS,
    Rules,
    description,
    prepare,
)
from genrec.data.large.reading import LogFiles
from genrec.data.remote import table_files
from genrec.data.sources.folder import FolderSource
from genrec.data.tables import SUFFIXES, table_suffix
from genrec.remote.addresses import before_pattern, below, has_magic, is_remote, name_of, shown
from genrec.remote.copies import localised, on_this_machine, version_of

logger = logging.getLogger("genrec.data")

_VERSION = 2  # of the prepared form
_BESIDE = ("items", "users")
_OWN = ("partition_rows",)  # what FolderSource lacks


class LargeSource(FolderSource):
    """Interactions from ``path``: a file, a glob pattern, or a folder of tables of one kind, which are one log together
    (in a folder those called ``interactions*`` where there are any; ``items.*`` and ``users.*`` are tables of their
    own). They are read in pieces and prepared once below ``cache_dir``; of the other columns nothing is kept.

    The options are those of ``FolderSource``; ``partition_rows`` are sorted in memory at a time.
    """

    def __init__(
        self,
        *,
        path: str,
        cache_dir: str,
        partition_rows: Count = 2_000_000,
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
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_arguments(LargeSource.__init__, options, "data.source")
        super().__init__(**{name: value for name, value in options.items() if name not in _OWN})
        self.partition_rows = partition_rows

    @property
    def name(self) -> str:
        first = before_pattern(self.path)
        name = name_of(first) if is_remote(first) else Path(first).name
        return name.split(".")[0].strip("*-_") or "large"

    @cached_property
    def tables(self) -> list[Path]:
        """All tables that ``path`` means, by name, on this machine: of interactions, and those beside them."""
        return table_files(self.path, self.cache_dir, self.storage_options, choose=self._worth_fetching)

    @cached_property
    def files(self) -> list[Path]:
        """The tables of interactions."""
        return self.tables if len(self.tables) == 1 and not self._is_folder else self._interactions(self.tables)

    @property
    def _is_folder(self) -> bool:
        """Whether the path means a folder, in which other tables may have their names."""
        place = on_this_machine(self.path)
        if place is not None:
            return place.is_dir()
        return not has_magic(self.path) and table_suffix(Path(name_of(self.path))) not in SUFFIXES

    def _worth_fetching(self, names: list[str]) -> list[str]:
        others = [Path(given).name for given in (self.items_path, self.users_path) if given]
        wanted = {path.name for path in self._interactions([Path(name) for name in names])}
        return [name for name in names if name in wanted or _stem(name) in _BESIDE or name in others]

    def _interactions(self, tables: list[Path]) -> list[Path]:
        given = [Path(name).name for name in (self.items_path, self.users_path) if name]
        logs = [path for path in tables if _stem(path.name) not in _BESIDE and path.name not in given]
        found = [path for path in logs if _stem(path.name).startswith("interactions")] or logs
        kinds = sorted({table_suffix(path) for path in found})
        if not found:
            raise GenrecError(f"data.path={shown(self.path)} holds no table of interactions.")
        if len(kinds) > 1:
            raise GenrecError(
                f"data.path: files of one kind belong together, and here are {', '.join(kinds)}. "
                f"Name those that are meant, for example data.path='{shown(self.path)}/*{kinds[0]}'."
            )
        return found

    @cached_property
    def folder(self) -> Path:
        """Where the prepared log lies."""
        with Cache(Path(self.cache_dir)).entry("large", self._key()) as (folder, ready):
            if not ready:
                logger.info("%s: preparing %d files (once) in %s", self.name, len(self.files), folder)
                files = LogFiles(self.files, folder / "work", self.columns, self.delimiter, self.encoding)
                rules = Rules(self.cleaning, self.min_rating, self.partition_rows)
                prepare(files, folder, rules, items=self._items(), users=self._users())
            return folder

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the preparation tells of the log."""
        return description(self.folder)

    def load(self) -> SourceData:
        """Prepares the log, if that has not been done, and opens it."""
        folder, told = self.folder, self.description["report"]
        arrays = {name: open_array(folder / name) for name in (USERS, ITEMS, TIMES, USER_IDS, ITEM_IDS)}
        log = InteractionLog(
            users=arrays[USERS],
            items=arrays[ITEMS],
            user_ids=arrays[USER_IDS],
            item_ids=arrays[ITEM_IDS],
            timestamps=arrays[TIMES] if len(arrays[TIMES]) else None,
            item_table=_table(folder / ITEM_TABLE),
            user_table=_table(folder / USER_TABLE),
        )
        return SourceData(log, DataReport(told["counts"], told["notes"]), self.files[0].parent)

    def _beside(self, stem: str, given: str | None) -> Path | None:
        """The file of another table on this machine: the one given, or the one of that name in the folder."""
        if given is None:
            tables = self.tables if self._is_folder else []
            return next((path for path in tables if _stem(path.name) == stem), None)
        if is_remote(given) or Path(given).exists():
            return localised(given, self.cache_dir, self.storage_options)
        found = next((path for path in self.tables if self._is_folder and path.name == given), None)
        if found is None and is_remote(self.path) and self._is_folder:
            return localised(below(self.path, given), self.cache_dir, self.storage_options)
        path = found or Path(self.path) / given
        if not path.exists():
            raise GenrecError(f"data.source.{stem}_path={given} does not exist.")
        return path

    def _key(self) -> str:
        beside = {"items": self._beside("items", self.items_path), "users": self._beside("users", self.users_path)}
        versions = {name: path and version_of(path) for name, path in beside.items()}
        versions["interactions"] = [version_of(path) for path in self.files]
        options = [self.columns, self.items_columns, self.text_columns, self.users_columns, self.delimiter]
        rules = {name: value for name, value in vars(self.cleaning).items()}
        return fingerprint(_VERSION, versions, options, self.encoding, self.min_rating, rules)


def _stem(name: str) -> str:
    return name.split(".")[0]


def _table(path: Path) -> pl.DataFrame | None:
    return pl.read_parquet(path) if path.exists() else None
