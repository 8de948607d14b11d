"""Ratings with what was known before: by hand, by a plain loop, every archive, and the real one."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.sources import movielens_ratings
from genrec.data.sources.movielens_ratings import MovieLensRatingsSource

RATINGS = [
    (1, 30, "4.0", 300),  # the same second as 10: neither knows of the other
    (1, 10, "4.5", 300),
    (1, 20, "3.5", 100),
    (1, 40, "5.0", 200),
    (2, 30, "1.0", 50),
    (1, 50, "2.0", 400),
    (10, 20, "5.0", 70),
]
MOVIES = [
    (10, "Amélie (Fabuleux destin, Le) (2001)", "Comedy|Romance"),
    (20, "Heat (1995)", "Action"),
    (30, "Babylon 5", "Sci-Fi"),
    (40, "2012 (2009) ", "(no genres listed)"),
]  # 50 is in no table
EXPECTED = [  # by user, then time
    (1, 20, 3.5, 100, 0, ["Action"], 1995, 0, 1 / 2, []),
    (1, 40, 5.0, 200, 1, [], 2009, 1, 1 / 3, []),
    (1, 30, 4.0, 300, 1, ["Sci-Fi"], None, 2, 2 / 4, [40]),
    (1, 10, 4.5, 300, 1, ["Comedy", "Romance"], 2001, 2, 2 / 4, [40]),
    (1, 50, 2.0, 400, 0, None, None, 4, 4 / 6, [40, 30, 10]),
    (2, 30, 1.0, 50, 0, ["Sci-Fi"], None, 0, 1 / 2, []),
    (10, 20, 5.0, 70, 1, ["Action"], 1995, 0, 1 / 2, []),
]
COLUMNS = [
    *("user_id", "movie_id", "rating", "timestamp", "liked", "genres", "year", "num_ratings", "share_liked", "history"),
]


def written(folder: Path, ratings: list[tuple] = RATINGS, archive: str = "csv") -> MovieLensRatingsSource:
    """A source that reads these ratings in the format of an archive."""
    if archive == "csv":
        rows = "".join(f"{user},{movie},{rating},{time}\n" for user, movie, rating, time in ratings)
        (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")
        rows = "".join(f'{movie},"{title}",{genres}\n' for movie, title, genres in MOVIES)
        (folder / "movies.csv").write_text(f"movieId,title,genres\n{rows}")
    else:
        (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ratings))
        rows = "".join("::".join(map(str, row)) + "\n" for row in MOVIES)
        (folder / "movies.dat").write_text(rows, encoding="latin-1")
    return MovieLensRatingsSource(path=str(folder))


def table(source: MovieLensRatingsSource) -> pl.DataFrame:
    return pl.concat(source.chunks())


@pytest.mark.parametrize("archive", ["csv", "dat"])
def test_by_hand(tmp_path, archive):
    frame = table(written(tmp_path, archive=archive))
    assert frame.columns == COLUMNS
    assert frame.rows() == EXPECTED


def test_genres_of_100k_and_no_year(tmp_path):
    flags = "|".join("1" if genre in (5, 14) else "0" for genre in range(19))
    (tmp_path / "u.data").write_text("1\t10\t3\t100\n")
    (tmp_path / "u.item").write_text(f"10|Amélie (2001)|||u|{flags}\n", encoding="latin-1")
    frame = table(MovieLensRatingsSource(path=str(tmp_path), threshold=3))
    assert frame.select("genres", "year", "liked").rows() == [(["Comedy", "Romance"], 2001, 1)]


def test_threshold_and_length_of_histories(tmp_path):
    written(tmp_path)
    frame = table(MovieLensRatingsSource(path=str(tmp_path), threshold=4.5, history_length=1))
    assert frame["liked"].to_list() == [0, 1, 0, 1, 0, 0, 1]
    assert frame["history"].to_list() == [[], [], [40], [40], [10], [], []]
    frame = table(MovieLensRatingsSource(path=str(tmp_path), threshold=1))
    assert frame["history"].to_list()[4] == [20, 40, 30, 10]
    frame = table(MovieLensRatingsSource(path=str(tmp_path), threshold=6))
    assert frame["history"].list.len().sum() == 0


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_plain_loop(tmp_path, monkeypatch, seed):
    """Few seconds, so many ties; in chunks of few rows, whose seams must not show."""
    monkeypatch.setattr(movielens_ratings, "_ROWS_OF_A_CHUNK", 17)
    rng = np.random.default_rng(seed)
    pairs = rng.choice(5 * 40, size=120, replace=False)
    rated = [(int(p) // 40, int(p) % 40, rng.integers(2, 11) / 2, int(rng.integers(25))) for p in pairs]
    written(tmp_path, rated)
    source = MovieLensRatingsSource(path=str(tmp_path), history_length=4)
    chunks = list(source.chunks())
    assert [chunk.height for chunk in chunks] == [17] * 7 + [1]
    frame = pl.concat(chunks)
    assert frame.height == 120
    stored = {(user, movie): place for place, (user, movie, _, _) in enumerate(rated)}
    for row in frame.to_dicts():
        earlier = [other for other in rated if other[0] == row["user_id"] and other[3] < row["timestamp"]]
        liked = [other for other in earlier if other[2] >= 4]
        liked.sort(key=lambda other: (other[3], stored[other[0], other[1]]))
        assert row["history"] == [movie for _, movie, _, _ in liked][-4:]
        assert row["num_ratings"] == len(earlier)
        assert row["share_liked"] == pytest.approx((len(liked) + 1) / (len(earlier) + 2))


def test_what_comes_later_changes_nothing_before(tmp_path):
    """The rows of a prefix of the ratings are the same with and without the rest."""
    (tmp_path / "all").mkdir()
    (tmp_path / "early").mkdir()
    whole = table(written(tmp_path / "all")).filter(pl.col("timestamp") < 300)
    early = table(written(tmp_path / "early", [row for row in RATINGS if row[3] < 300]))
    assert whole.equals(early)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(GenrecError, match=r"ratings\.csv.*download=true"):
        next(MovieLensRatingsSource(path=str(tmp_path)).chunks())
    source = written(tmp_path, [*RATINGS, (3, 10, "good", 100)])
    with pytest.raises(
        GenrecError, match=r"1 ratings in .* lack a readable user, movie, rating or time, first in row 8"
    ):
        table(source)
    source = written(tmp_path)
    (tmp_path / "movies.csv").unlink()
    with pytest.raises(GenrecError, match=r"holds ratings but no movies\.csv"):
        table(source)
    with pytest.raises(GenrecError, match="latest-small, 100k, 1m, 20m"):
        MovieLensRatingsSource(path="x", version="2m")
    with pytest.raises(GenrecError, match=r"data\.source\.history_length=0"):
        MovieLensRatingsSource(path="x", history_length=0)


def test_latest_small(real):
    frame = table(MovieLensRatingsSource(path=str(real("movielens_latest_small"))))
    assert frame.height == 100_836
    assert frame["liked"].sum() == 48_580
    assert frame.select("user_id", "movie_id").n_unique() == 100_836
    assert frame["year"].null_count() == 18
    at = {(user, movie): time for user, movie, time in frame.select("user_id", "movie_id", "timestamp").iter_rows()}
    for row in frame.sample(2000, seed=0).iter_rows(named=True):
        times = [at[row["user_id"], movie] for movie in row["history"]]
        assert times == sorted(times) and all(time < row["timestamp"] for time in times)
        assert row["movie_id"] not in row["history"]


def test_yaml_says_what_the_code_says(repository):
    given = OmegaConf.load(repository / "conf" / "data" / "movielens_ctr.yaml").source
    parameters = inspect.signature(MovieLensRatingsSource).parameters
    assert list(given)[1:] == list(parameters)
    tied = ("path", "progress", "storage_options", "cache_dir")
    assert all(given[name] == parameter.default for name, parameter in parameters.items() if name not in tied)


def test_the_data_set_composes(tmp_path):
    written(tmp_path)
    choices = ["data=movielens_ctr", f"data.path={tmp_path}", "split.val_from=300", "split.test_from=400"]
    data = instantiate(compose_config(choices).data, _convert_="all")
    features = data.spec.features
    assert [field.name for field in features.sparse] == ["user_id", "movie_id", "year"]
    assert features.dense == ("num_ratings", "share_liked")
    assert [(field.name, field.table, field.target) for field in features.sequences] == [
        ("genres", "genres", None),
        ("history", "movie_id", "movie_id"),
    ]
    view = data.view("rows")
    assert [view.num_rows(part) for part in ("train", "val", "test")] == [4, 2, 1]
    found = view.eval_batches("val", batch_size=10)[0]
    assert found.labels.tolist() == [[1.0], [1.0]]
    assert (found.sequences[1] >= 0).sum(dim=1).tolist() == [1, 1]
