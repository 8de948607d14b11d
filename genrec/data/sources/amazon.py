"""Amazon product reviews of 2014 (McAuley et al., SIGIR 2015), prepared or in their original files."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log, with_items
from genrec.data.download import download as fetch
from genrec.data.download import missing_files
from genrec.data.interactions import ITEM_ID, TITLE, USER_ID, DataReport, SourceData
from genrec.data.remote import DEFAULT_CACHE, data_folder
from genrec.data.sources.reviews import read_products, read_reviews
from genrec.data.storage import is_saved, load_folder, save_folder
from genrec.data.tables import find_file, find_table, joined_text, map_columns, read_table, read_text

logger = logging.getLogger("genrec.data")


def load_prepared(folder: Path) -> SourceData | None:
    """Reads prepared files: ``interactions`` (with times) or ``sequences.txt``, and ``items`` where there are any.

    None when the folder holds neither. Rows keep their order; items nobody met stay in the catalogue.
    """
    report = DataReport()
    table = find_table(folder, "interactions")
    sequences = find_file(folder, "sequences.txt")
    if table is not None:
        frame = map_columns(read_table(table), {}, required=(USER_ID, ITEM_ID), path=table, key="data.source.columns")
    elif sequences is not None:
        frame = read_sequences(sequences, report)
    else:
        return None
    items_path = find_table(folder, "items")
    items = None if items_path is None else with_text(_item_table(items_path))
    cleaning = Cleaning(drop_duplicates=False, unused_items="keep")
    log, report = build_log(frame, items=items, cleaning=cleaning, report=report)
    return SourceData(log, report, folder)


def _item_table(path: Path) -> pl.DataFrame:
    return map_columns(read_table(path), {}, required=(ITEM_ID,), path=path, key="data.source.items_columns")


def read_sequences(path: Path, report: DataReport) -> pl.DataFrame:
    """Rows of a file with one user per line, ``user item item ...``, in the order of the file."""
    lines = pl.Series("line", read_text(path).splitlines(), dtype=pl.String)
    words = lines.str.strip_chars().str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    frame = pl.DataFrame({USER_ID: words.list.first(), ITEM_ID: words.list.slice(1)})
    frame = frame.filter(pl.col(USER_ID).is_not_null())
    empty = frame[ITEM_ID].list.len() == 0
    report.add("empty_users", int(empty.sum()))
    return frame.filter(~empty).explode(ITEM_ID)


def with_text(items: pl.DataFrame) -> pl.DataFrame:
    """Adds the text that the field encodes: title, brand, category path and price joined by ". ", where known."""
    parts = {
        TITLE: pl.col(TITLE),
        "brand": pl.col("brand"),
        "categories": pl.col("categories").str.replace_all("|", " > ", literal=True),
        "price": pl.format("${}", pl.col("price")),
    }
    known = [expression for name, expression in parts.items() if name in items.columns]
    return joined_text(items, known) if known else items


class AmazonSource:
    """One category of the reviews, in ``path``: prepared files where they exist, else the original ones.

    The original ``reviews_<category>.json.gz`` and ``meta_<category>.json.gz`` are fetched from ``base_url`` with
    ``download=True``, reduced to the users and items with at least ``k_core`` interactions each (prepared files are
    taken as they are), ordered by time with the order of the file breaking ties, and kept as ``cleaned_<k>core``.
    ``sha256`` maps a file's name to the hash it must have.
    """

    def __init__(
        self,
        *,
        path: str,
        category: str = "Beauty",
        download: bool = False,
        base_url: str = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
        k_core: int = 5,
        sha256: dict[str, str] | None = None,
        progress: bool = True,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        self.path = path
        self.storage_options = storage_options
        self.cache_dir = cache_dir
        self.category = category
        self.download = download
        self.base_url = base_url.rstrip("/")
        self.cleaning = Cleaning(min_user_interactions=max(k_core, 1), min_item_interactions=max(k_core, 1))
        self.k_core = k_core
        self.sha256 = dict(sha256 or {})
        self.progress = progress
        unknown = sorted(set(self.sha256) - set(self.raw_files))
        if unknown:
            raise GenrecError(f"sha256 names {', '.join(unknown)}; the files are {' and '.join(self.raw_files)}.")

    @property
    def name(self) -> str:
        return f"amazon {self.category}"

    @property
    def raw_files(self) -> tuple[str, str]:
        """Names of the original files: reviews, products."""
        return f"reviews_{self.category}.json.gz", f"meta_{self.category}.json.gz"

    @cached_property
    def folder(self) -> Path:
        """The folder of the data set, on this machine."""
        names = ("interactions.*", "items.*", "sequences.txt", *self.raw_files)
        how = {"download": self.download, "progress": self.progress}
        return data_folder(self.path, names, self.cache_dir, self.storage_options, **how)

    def load(self) -> SourceData:
        """Reads prepared files, or cleaned ones, or cleans the original ones (fetching them if that is allowed)."""
        prepared = load_prepared(self.folder) if self.folder.is_dir() else None
        if prepared is not None:
            return prepared
        reviews, products = (self.folder / name for name in self.raw_files)
        if self.download:
            for path in (reviews, products):
                url, expected = f"{self.base_url}/{path.name}", self.sha256.get(path.name)
                fetch(url, path, sha256=expected, progress=self.progress)
        elif not reviews.exists():
            wanted = f"interactions.tsv, sequences.txt or {reviews.name} (each perhaps with .gz)"
            raise missing_files(self.folder, wanted, download=True)
        return self._cleaned(reviews, products)

    def _cleaned(self, reviews: Path, products: Path) -> SourceData:
        folder = self.folder / f"cleaned_{self.k_core}core"
        origin = {path.name: path.stat().st_size for path in (reviews, products) if path.exists()}
        if is_saved(folder, origin):
            return load_folder(folder)
        report = DataReport()
        log, report = build_log(
            read_reviews(reviews, report, progress=self.progress), cleaning=self.cleaning, report=report
        )
        if products.exists():
            wanted = set(log.item_ids.tolist())
            table = with_text(read_products(products, {str(item) for item in wanted}, report, progress=self.progress))
            log = with_items(log, table, report)
        else:
            report.notes.append(f"{products.name} is not there, so items have neither title nor text.")
        data = SourceData(log, report, self.folder)
        try:
            save_folder(data, folder, name=self.name, origin=origin)
        except OSError as error:
            logger.warning(
                "The cleaned data could not be kept in %s (%s); they are made again next time.", folder, error
            )
        return data
