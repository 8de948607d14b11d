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
from genrec.data.remote import files_of, localised
from genrec.data.sources.folder import FolderSource
from genrec.data.tables import SUFFIXES, table_suffix
from genrec.remote.addresses import before_pattern, below, has_magic, is_remote, name_of, shown
from genrec.remote.copies import listed

logger = logging.getLogger("genrec.data")

_VERSION = 1  # of the prepared form
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
    def addresses(self) -> list[str]:
        """The tables of interactions, by name, on this machine or not."""
        tables = [path for path in files_of(self.path, self.storage_options) if _stem(path) not in ("items", "users")]
        found = [path for path in tables if _stem(path).startswith("interactions")] or tables
        kinds = sorted({_kind(path) for path in found})
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
                logger.info("%s: preparing %d files (once) in %s", self.name, len(self.addresses), folder)
                paths = [localised(path, self.cache_dir, self.storage_options) for path in self.addresses]
                files = LogFiles(paths, folder / "work", self.columns, self.delimiter, self.encoding)
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
        beside = None if is_remote(self.addresses[0]) else Path(self.addresses[0]).parent
        return SourceData(log, DataReport(told["counts"], told["notes"]), beside)

    def _beside(self, stem: str, given: str | None) -> Path | None:
        """The file of another table on this machine: the one given, or the one of that name in the folder."""
        folder = not has_magic(self.path) and _kind(self.path) not in SUFFIXES
        if given is None:
            tables = files_of(self.path, self.storage_options) if folder else []
            found = next((path for path in tables if _stem(path) == stem), None)
        elif is_remote(given) or Path(given).exists():
            found = given
        else:
            found = below(self.path, given) if is_remote(self.path) and folder else str(Path(self.path) / given)
        if found is not None and not is_remote(found) and not Path(found).exists():
            raise GenrecError(f"data.source.{stem}_path={given} does not exist.")
        return None if found is None else localised(found, self.cache_dir, self.storage_options)

    def _key(self) -> str:
        beside = [self._beside("items", self.items_path), self._beside("users", self.users_path)]
        versions = [self._version(path) for path in [*self.addresses, *(str(path) for path in beside if path)]]
        options = [self.columns, self.items_columns, self.text_columns, self.users_columns, self.delimiter]
        rules = {name: value for name, value in vars(self.cleaning).items()}
        return fingerprint(_VERSION, versions, options, self.encoding, self.min_rating, rules)

    def _version(self, path: str) -> list[Any]:
        """What tells a file from an earlier one of its name without reading it."""
        if is_remote(path):
            (file,) = listed(path, self.storage_options)
            return [name_of(path), file.size, file.version]
        stat = Path(path).stat()
        return [Path(path).name, stat.st_size, stat.st_mtime_ns]


def _stem(path: str) -> str:
    return (name_of(path) if is_remote(path) else Path(path).name).split(".")[0]


def _kind(path: str) -> str:
    return table_suffix(Path(name_of(path) if is_remote(path) else path))


def _table(path: Path) -> pl.DataFrame | None:
    return pl.read_parquet(path) if path.exists() else None
