"""MovieLens as a table of ratings with what was known before each of them: was the movie liked?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import polars as pl

from genrec.annotations import Count, check_arguments
from genrec.contracts import GenrecError
from genrec.data.interactions import ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID
from genrec.data.parsing import exact_ids, parse_times
from genrec.data.remote import DEFAULT_CACHE, data_folder
from genrec.data.sources.movielens import FILES, GENRES, NO_GENRES, MovieLensFiles

MOVIE_ID, YEAR, HISTORY, LIKED = "movie_id", "year", "history", "liked"
NUM_RATINGS, SHARE_LIKED = "num_ratings", "share_liked"
_ROWS_OF_A_CHUNK = 50_000  # whose histories are held at a time


class MovieLensRatingsSource:
    """The ratings in ``path``, whichever archive they are from; ``version`` says which one ``download=True`` fetches.

    ``liked`` is 1 for a rating of at least ``threshold``. ``history`` holds the last ``history_length`` movies that the
    user liked, oldest first; ``num_ratings`` counts the user's ratings and ``share_liked`` is the share liked among
    them, as if one more had been liked and one not. All three know nothing but what is strictly earlier: people rate
    many movies within one second, and such ratings do not see each other.
    """

    def __init__(
        self,
        *,
        path: str,
        version: str = "latest-small",
        threshold: float = 4.0,
        history_length: Count = 50,
        download: bool = False,
        base_url: str = "https://files.grouplens.org/datasets/movielens",
        sha256: str | None = None,
        progress: bool = True,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        check_arguments(MovieLensRatingsSource.__init__, locals(), "data.source")
        where = partial(data_folder, path, FILES, cache_dir, storage_options, download=download, progress=progress)
        self.files = MovieLensFiles(
            where, version, download=download, base_url=base_url, sha256=sha256, progress=progress
        )
        self.threshold = threshold
        self.history_length = history_length

    @property
    def name(self) -> str:
        return f"movielens {self.files.version} ratings"

    def chunks(self) -> Iterator[pl.DataFrame]:
        """One row per rating, by user, then time, then stored order."""
        frame = self._rated.join(self._movies, on=MOVIE_ID, how="left", maintain_order="left")
        users, times, liked = (self._rated[name].to_numpy() for name in (USER_ID, TIMESTAMP, LIKED))
        first_of_user = _first_of_run(users)
        known = _first_of_run(users, times)  # the row before which everything is earlier
        likes = np.append(0, liked.cumsum())
        num_liked = likes[known] - likes[first_of_user]
        num_rated = known - first_of_user
        frame = frame.with_columns(
            pl.Series(NUM_RATINGS, num_rated), pl.Series(SHARE_LIKED, (num_liked + 1) / (num_rated + 2))
        )
        movies = np.append(self._rated[MOVIE_ID].to_numpy()[liked == 1], 0)
        lengths = np.minimum(num_liked, self.history_length)
        for begin in range(0, frame.height, _ROWS_OF_A_CHUNK):
            rows = slice(begin, begin + _ROWS_OF_A_CHUNK)
            places = (likes[known[rows]] - lengths[rows])[:, None] + np.arange(self.history_length)
            lists = pl.Series(HISTORY, movies[np.minimum(places, len(movies) - 1)]).cast(pl.List(pl.Int64))
            yield frame[rows].with_columns(lists.list.head(pl.lit(lengths[rows])))

    @cached_property
    def _rated(self) -> pl.DataFrame:
        """The ratings, sorted by user, then time, then stored order."""
        text = self.files.ratings()
        frame = pl.DataFrame(
            {
                USER_ID: exact_ids(text[USER_ID], USER_ID).cast(pl.Int64, strict=False),
                MOVIE_ID: exact_ids(text[ITEM_ID], ITEM_ID).cast(pl.Int64, strict=False),
                RATING: text[RATING].cast(pl.Float64, strict=False),
                TIMESTAMP: parse_times(text[TIMESTAMP]),
            }
        )
        broken = frame.select(pl.any_horizontal(pl.all().is_null()).arg_true()).to_series()
        if len(broken):
            raise GenrecError(
                f"{len(broken):,} ratings in {self.files.folder} lack a readable user, movie, rating or time, first in "
                f"row {broken[0] + 1}. Delete the file and fetch it again (data.source.download=true)."
            )
        frame = frame.with_columns((pl.col(RATING) >= self.threshold).cast(pl.Int64).alias(LIKED))
        return frame.sort(USER_ID, TIMESTAMP, maintain_order=True)

    @cached_property
    def _movies(self) -> pl.DataFrame:
        """What is known of the movies: the list of their genres, and the year that their title ends with."""
        movies = self.files.movies()
        if movies is None:
            raise GenrecError(
                f"{self.files.folder} holds ratings but no movies.csv, movies.dat or u.item (each perhaps with .gz). "
                "Put the one of the same archive there, or fetch both (data.source.download=true in an empty folder)."
            )
        genres = pl.col(GENRES).replace(["", NO_GENRES], None).str.split("|")
        known = movies.with_columns(pl.col(ITEM_ID).cast(pl.Int64, strict=False).alias(MOVIE_ID)).drop_nulls(MOVIE_ID)
        return known.unique(MOVIE_ID, keep="first", maintain_order=True).select(
            MOVIE_ID,
            genres.fill_null(pl.lit([], dtype=pl.List(pl.String))),
            pl.col(TITLE).str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64).alias(YEAR),
        )


def _first_of_run(*columns: np.ndarray) -> np.ndarray:
    """(M,) for each row the first row of the run of equal values that it belongs to."""
    starts = np.ones(len(columns[0]), dtype=bool)
    starts[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(starts)[starts.cumsum() - 1]
