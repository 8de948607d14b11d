"""MovieLens (Harper & Konstan, TiiS 2015) in the formats of its public archives, prepared or fetched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log
from genrec.data.download import download as fetch
from genrec.data.download import extract_zip, missing_files
from genrec.data.interactions import ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID, DataReport, SourceData
from genrec.data.remote import DEFAULT_CACHE, data_folder
from genrec.data.tables import find_file, joined_text, map_columns, read_table

VERSIONS = {
    "latest-small": "ml-latest-small",
    "100k": "ml-100k",
    "1m": "ml-1m",
    "20m": "ml-20m",
}
GENRES = "genres"
FILES = ("ratings.csv", "ratings.dat", "u.data", "movies.csv", "movies.dat", "u.item")
_LOOKED_FOR = "ratings.csv, ratings.dat or u.data (each perhaps with .gz)"
_COLUMNS = {USER_ID: "userId", ITEM_ID: "movieId", RATING: "rating", TIMESTAMP: "timestamp"}
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRES = "(no genres listed)"


class MovieLensFiles:
    """The archive in the folder that ``where`` finds, whichever it is; ``version`` says which one ``download=True``
    fetches if none is."""

    def __init__(
        self,
        where: Callable[[], Path],
        version: str,
        *,
        download: bool,
        base_url: str,
        sha256: str | None,
        progress: bool,
    ) -> None:
        if version not in VERSIONS:
            raise GenrecError(f"version must be one of {', '.join(VERSIONS)}; got {version!r}.")
        self.where = where
        self.version = version
        self.download = download
        self.base_url = base_url.rstrip("/")
        self.sha256 = sha256
        self.progress = progress

    @cached_property
    def folder(self) -> Path:
        """The folder of the archive, on this machine."""
        return self.where()

    def ratings(self) -> pl.DataFrame:
        """The ratings as text, fetched first where they are missing and that is allowed."""
        if self._ratings_file() is None:
            if not self.download:
                raise missing_files(self.folder, _LOOKED_FOR, download=True)
            archive = self.folder / f"{VERSIONS[self.version]}.zip"
            fetch(f"{self.base_url}/{archive.name}", archive, sha256=self.sha256, progress=self.progress)
            extract_zip(archive, self.folder)
        path = self._ratings_file()
        if path is None:
            raise GenrecError(f"The archive fetched to {self.folder} holds none of {_LOOKED_FOR}.")
        name = path.name.removesuffix(".gz")
        if name == "ratings.csv":
            return map_columns(read_table(path), _COLUMNS, required=(), path=path, key="data.source.columns")
        return read_table(path, header=list(_COLUMNS), delimiter="::" if name == "ratings.dat" else "\t")

    def movies(self) -> pl.DataFrame | None:
        """``item_id``, ``title`` and ``genres`` ("Comedy|Romance", perhaps ``NO_GENRES``), if there is such a table."""
        if path := find_file(self.folder, "movies.csv"):
            columns = {ITEM_ID: "movieId"}
            return map_columns(
                read_table(path), columns, required=(TITLE, GENRES), path=path, key="data.source.columns"
            )
        if path := find_file(self.folder, "movies.dat"):
            return read_table(path, header=[ITEM_ID, TITLE, GENRES], delimiter="::", encoding="latin-1")
        if path := find_file(self.folder, "u.item"):
            return _read_movies_100k(path)
        return None

    def _ratings_file(self) -> Path | None:
        found = (find_file(self.folder, name) for name in ("ratings.csv", "ratings.dat", "u.data"))
        return next((path for path in found if path is not None), None)


class MovieLensSource:
    """The ratings in ``path``, whichever archive they are from; ``version`` says which one ``download=True`` fetches.

    Ratings below ``min_rating`` are dropped (null keeps all), then users and items with fewer than ``k_core`` ratings.
    """

    def __init__(
        self,
        *,
        path: str,
        version: str = "latest-small",
        min_rating: float | None = None,
        k_core: int = 5,
        download: bool = False,
        base_url: str = "https://files.grouplens.org/datasets/movielens",
        sha256: str | None = None,
        progress: bool = True,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        where = partial(data_folder, path, FILES, cache_dir, storage_options, download=download, progress=progress)
        self.files = MovieLensFiles(
            where, version, download=download, base_url=base_url, sha256=sha256, progress=progress
        )
        self.min_rating = min_rating
        self.cleaning = Cleaning(min_user_interactions=max(k_core, 1), min_item_interactions=max(k_core, 1))

    @property
    def name(self) -> str:
        return f"movielens {self.files.version}"

    def load(self) -> SourceData:
        """Reads ratings and movies, fetching the archive first where they are missing and that is allowed."""
        report = DataReport()
        frame = self._above_min_rating(self.files.ratings(), report)
        log, report = build_log(frame, items=self._item_table(), cleaning=self.cleaning, report=report)
        return SourceData(log, report, self.files.folder)

    def _item_table(self) -> pl.DataFrame | None:
        movies = self.files.movies()
        if movies is None:
            return None
        movies = movies.with_columns(pl.col(GENRES).replace(NO_GENRES, None))
        return joined_text(movies, [pl.col(TITLE), pl.col(GENRES).str.replace_all("|", ", ", literal=True)])

    def _above_min_rating(self, frame: pl.DataFrame, report: DataReport) -> pl.DataFrame:
        if self.min_rating is None:
            return frame
        kept = frame.filter(pl.col(RATING).cast(pl.Float64, strict=False) >= self.min_rating)
        report.add("rows_below_min_rating", frame.height - kept.height)
        return kept


def _read_movies_100k(path: Path) -> pl.DataFrame:
    header = [ITEM_ID, TITLE, "release_date", "video_date", "url", *_GENRES_100K]
    movies = read_table(path, header=header, delimiter="|", encoding="latin-1")
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_100K]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias(GENRES)
    return movies.select(ITEM_ID, TITLE, genres)
