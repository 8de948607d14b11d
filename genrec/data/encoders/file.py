"""Item vectors that were computed before: npy, npz or Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.artifacts import file_fingerprint, reason_of
from genrec.contracts import GenrecError
from genrec.data.encoders import checked_vectors
from genrec.data.tables import SUFFIXES, table_suffix
from genrec.remote.addresses import below, is_remote, name_of
from genrec.remote.copies import DEFAULT_CACHE, localised
from genrec.remote.stores import MISSING, StoreError

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

_FORMATS = (".npy", ".npz", ".parquet")


@dataclass(kw_only=True)
class FileEncoder:
    """Reads ``path``; a relative one is looked up in the working directory, then in the folder of the data set, which
    may be remote. An address of a remote store is fetched below ``cache_dir``; ``storage_options`` belong to it.

    Rows follow the item table (without one: the sorted item ids), unless the file holds ids under ``id_column``: then
    rows are matched by id and may be more than the data set has. ``column`` names the array of an npz or the list
    column of a Parquet file; null takes the only candidate (for Parquet also all number columns side by side).
    """

    path: str
    column: str | None = None
    id_column: str = "item_id"
    storage_options: dict[str, Any] | None = None
    cache_dir: str = DEFAULT_CACHE

    def encode(self, dataset: Dataset) -> np.ndarray:
        path = self._find(dataset)
        try:
            vectors, ids = self._read(path)
        except GenrecError:
            raise
        except Exception as error:
            raise GenrecError(
                f"{path} could not be read as item vectors ({reason_of(error)}). "
                "Give a .npy, .npz or .parquet file without pickled objects."
            ) from error
        if ids is not None:
            vectors = _matched(vectors, ids, dataset.log.item_ids, path)
        return checked_vectors(vectors, num_items=dataset.num_items, origin=str(path))

    def content_key(self, dataset: Dataset) -> str:
        """Changes with the content of the file, so that cached vectors never outlive it."""
        return file_fingerprint(self._find(dataset))

    def exists(self, dataset: Dataset) -> bool:
        if any(candidate.is_file() for candidate in self._candidates(dataset)):
            return True
        url = self._address(dataset)
        try:
            return url is not None and localised(url, self.cache_dir, self._options(dataset)).is_file()
        except StoreError as error:
            if error.kind == MISSING:
                return False
            raise

    def _address(self, dataset: Dataset) -> str | None:
        """Where the file is in a remote store: the address given, or one in the remote folder of the data set."""
        folder = getattr(dataset, "path", None)
        if is_remote(self.path) or not is_remote(folder) or Path(self.path).is_absolute():
            return self.path if is_remote(self.path) else None
        file = table_suffix(Path(name_of(folder))) in SUFFIXES
        return below(folder.rpartition("/")[0] if file else folder, self.path)

    def _options(self, dataset: Dataset) -> Any:
        return self.storage_options or getattr(dataset, "storage_options", None)

    def _candidates(self, dataset: Dataset) -> list[Path]:
        if is_remote(self.path):
            return []
        path = Path(self.path).expanduser()
        folders = [Path.cwd()] if dataset.source_folder is None else [Path.cwd(), Path(dataset.source_folder)]
        return [path] if path.is_absolute() else [folder / path for folder in folders]

    def _find(self, dataset: Dataset) -> Path:
        candidates = self._candidates(dataset)
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        url = self._address(dataset)
        if found is None and url is not None:
            found = localised(url, self.cache_dir, self._options(dataset))
        if found is not None:
            if found.suffix not in _FORMATS:
                raise GenrecError(f"{found} must end in {', '.join(_FORMATS)}; other formats cannot be read.")
            return found
        looked = " or ".join(str(candidate) for candidate in candidates)
        raise GenrecError(f"No item vectors at {looked}. Correct encoder.path, or use encoder=tfidf or collaborative.")

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if path.suffix == ".npz":
            return self._read_npz(path)
        return self._read_parquet(path)

    def _read_npz(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        with np.load(path, allow_pickle=False) as archive:
            ids = archive.get(self.id_column)
            names = [name for name in archive.files if name != self.id_column]
            return archive[self._choose(names, [n for n in names if archive[n].ndim == 2], path)], ids

    def _read_parquet(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        import polars as pl

        table = pl.read_parquet(path)
        ids = table[self.id_column].cast(pl.String).to_numpy() if self.id_column in table.columns else None
        table = table.drop(self.id_column, strict=False)
        lists = [name for name, kind in table.schema.items() if kind.is_nested()]
        if self.column is None and not lists:
            return table.to_numpy(), ids
        column = table[self._choose(table.columns, lists, path)]
        widths = column.list.len().unique() if isinstance(column.dtype, pl.List) else pl.Series([1])
        if len(widths) != 1 or column.null_count():
            raise GenrecError(f"{path}: the vectors in {column.name!r} differ in length or are missing in some rows.")
        return np.stack(column.to_list()), ids

    def _choose(self, names: list[str], candidates: list[str], path: Path) -> str:
        if self.column is not None:
            if self.column not in names:
                raise GenrecError(f"{path} has no {self.column!r}, only {', '.join(names)}. Correct encoder.column.")
            return self.column
        if len(candidates) != 1:
            found = ", ".join(candidates or names) or "nothing"
            raise GenrecError(f"{path} must hold one table of vectors, found {found}. Name one with encoder.column=...")
        return candidates[0]


def _matched(vectors: np.ndarray, ids: np.ndarray, wanted: np.ndarray, path: Path) -> np.ndarray:
    """The rows of ``vectors`` in the order of ``wanted`` ids; ids are compared as text, so 7 and "7" are one id."""
    if ids.ndim != 1 or vectors.ndim != 2:
        raise GenrecError(
            f"{path}: ids of shape {ids.shape} stand beside vectors of shape {vectors.shape}. Give one id and one row "
            "of numbers per item."
        )
    if len(ids) != len(vectors):
        raise GenrecError(f"{path}: {len(ids)} ids stand beside {len(vectors)} vectors.")
    row_of = {str(raw): row for row, raw in enumerate(ids.tolist())}
    if len(row_of) != len(ids):
        raise GenrecError(f"{path}: {len(ids) - len(row_of)} item ids occur more than once. Keep one row per item.")
    rows = [row_of.get(str(raw), -1) for raw in wanted.tolist()]
    missing = [str(raw) for raw, row in zip(wanted.tolist(), rows, strict=True) if row < 0]
    if missing:
        raise GenrecError(
            f"{path}: {len(missing)} of {len(wanted)} items have no vector, for example {', '.join(missing[:3])}. "
            "Add their rows, or drop these items from the data."
        )
    return vectors[rows]
