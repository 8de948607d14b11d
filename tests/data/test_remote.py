"""Data in remote stores are read as those of this machine are, and known by what they hold, not by where they lie."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import pytest

from genrec.artifacts import Cache, read_json
from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.encoders.file import FileEncoder
from genrec.data.remote import data_folder, files_of, table_files
from genrec.data.row_splits import RandomRows
from genrec.data.sources.amazon import AmazonSource
from genrec.data.sources.folder import FolderSource
from genrec.data.sources.lastfm import LastFMSource
from genrec.data.sources.movielens import MovieLensSource
from genrec.data.sources.movielens_ratings import MovieLensRatingsSource
from genrec.data.sources.table import TableSource
from genrec.data.splits import LeaveOneOut
from genrec.data.storage import save_folder
from genrec.data.table import TableDataset
from genrec.remote.copies import localised
from genrec.semantic_ids import SemanticIds
from genrec.stages import item_vectors
from genrec.tokenizers.file import FileTokenizer

MEMORY = fsspec.filesystem("memory")
INTERACTIONS = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user + step) % 5},{step}\n" for user in range(6) for step in range(4)
)
ITEMS = "item_id,title,brand\n" + "".join(f"i{item},Chair {item},Halden\n" for item in range(5))
USERS = "user_id,city\n" + "".join(f"u{user},Ulm\n" for user in range(6))
SHOP = {"interactions.csv": INTERACTIONS, "items.csv": ITEMS, "users.csv": USERS, "huge.bin": "x" * 1000}
CLICKS = "age,city,clicked\n" + "".join(f"{age},c{age % 3},{age % 2}\n" for age in range(20, 60))


@pytest.fixture
def bucket() -> Iterator[str]:
    name = f"/data-{uuid.uuid4().hex[:8]}"
    MEMORY.mkdir(name)
    yield f"memory:/{name}"
    MEMORY.rm(name, recursive=True)


def put(folder: str | Path, files: Mapping[str, str | bytes]) -> None:
    """The same files in a store and here."""
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        if isinstance(folder, Path):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        else:
            MEMORY.pipe_file(f"{folder.removeprefix('memory:/')}/{name}", content)


def shop(path: str | Path, cache: Path, **options: object) -> Dataset:
    source = FolderSource(path=str(path), cache_dir=str(cache), text_columns=["title", "brand"], **options)  # pyright: ignore
    return Dataset(source, LeaveOneOut(), path=str(path))


def test_files_of_a_file_a_folder_and_a_pattern(bucket: str, tmp_path: Path) -> None:
    for place in (bucket, tmp_path):
        put(place, {"b.csv": "1", "a.csv.gz": "2", "note.md": "3", "_tmp.csv": "4", "c.parquet": "5"})
        assert files_of(f"{place}/b.csv") == [f"{place}/b.csv"]
        assert files_of(str(place)) == [f"{place}/{name}" for name in ("a.csv.gz", "b.csv", "c.parquet")]
        assert files_of(f"{place}/*.csv*") == [f"{place}/{name}" for name in ("_tmp.csv", "a.csv.gz", "b.csv")]
        assert files_of(str(place), suffixes=(".parquet",)) == [f"{place}/c.parquet"]
        with pytest.raises(GenrecError):
            files_of(f"{place}/*.tsv")
        with pytest.raises(GenrecError):
            files_of(f"{place}/gone.csv")
    assert [localised(url, tmp_path / "cache").read_text() for url in files_of(bucket)] == ["2", "1", "5"]
    assert [path.name for path in table_files(f"{bucket}/*.csv", tmp_path / "cache")] == ["_tmp.csv", "b.csv"]


def test_a_remote_folder_is_the_same_data_set_as_its_copy_here(bucket: str, tmp_path: Path) -> None:
    put(bucket, SHOP)
    put(tmp_path / "shop", SHOP)
    remote, local = shop(f"{bucket}/", tmp_path / "cache"), shop(tmp_path / "shop", tmp_path / "cache")
    assert remote.fingerprint == local.fingerprint
    assert remote.texts == local.texts and remote.texts[0] == "Chair 0. Halden"
    users = remote.log.user_table, local.log.user_table
    assert users[0] is not None and users[1] is not None and users[0].equals(users[1])
    assert not list((tmp_path / "cache").glob("**/huge.bin"))  # nobody reads it
    put(bucket, {"interactions.csv": INTERACTIONS.replace("u0,i0,0", "u0,i4,0")})
    assert shop(bucket, tmp_path / "cache").fingerprint != local.fingerprint


def test_a_remote_file_with_tables_elsewhere(bucket: str, tmp_path: Path) -> None:
    put(bucket, {"log.csv": INTERACTIONS, "other/things.csv": ITEMS})
    put(tmp_path / "shop", SHOP)
    local = shop(tmp_path / "shop", tmp_path / "cache")
    far = shop(f"{bucket}/log.csv", tmp_path / "cache", items_path=f"{bucket}/other/things.csv")
    near = shop(f"{bucket}/log.csv", tmp_path / "cache", items_path=str(tmp_path / "shop" / "items.csv"))
    folder = shop(bucket, tmp_path / "cache", items_path="other/things.csv")
    assert far.texts == near.texts == folder.texts == local.texts
    assert far.log.fingerprint == near.log.fingerprint == folder.log.fingerprint
    assert far.name == "log" and folder.name == bucket.rpartition("/")[2]


def test_folders_that_hold_no_table_or_several(bucket: str, tmp_path: Path) -> None:
    put(bucket, {"a.csv": INTERACTIONS, "b.csv": INTERACTIONS})
    for path, said in ((bucket, "exactly one table"), (f"{bucket}/*.csv", "a pattern of several")):
        with pytest.raises(GenrecError, match=said):
            _ = shop(path, tmp_path).log


def test_the_canonical_folder_is_put_into_a_store_and_read_back(bucket: str, tmp_path: Path) -> None:
    put(tmp_path / "shop", SHOP)
    local = shop(tmp_path / "shop", tmp_path / "cache")
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    save_folder(local.loaded, f"{bucket}/saved", name="shop", vectors=vectors)
    source = FolderSource(path=f"{bucket}/saved", cache_dir=str(tmp_path / "cache"))
    remote = Dataset(source, LeaveOneOut(), path=f"{bucket}/saved")
    assert remote.fingerprint == local.fingerprint
    assert np.array_equal(FileEncoder(path="item_vectors.npy").encode(remote), vectors)


def table(path: str | list[str], cache: Path) -> TableDataset:
    source = TableSource(path=path, cache_dir=str(cache))
    return TableDataset(source, RandomRows(), labels="clicked", memory_map=True, cache_dir=str(cache))


def test_tables_of_a_store(bucket: str, tmp_path: Path) -> None:
    halves = CLICKS.splitlines(keepends=True)
    parts = {"days/a.csv": "".join(halves[:21]), "days/b.csv": halves[0] + "".join(halves[21:])}
    put(bucket, parts)
    put(tmp_path, parts)
    cache = tmp_path / "cache"
    local = table(str(tmp_path / "days"), cache)
    for path in (f"{bucket}/days", f"{bucket}/days/*.csv", [f"{bucket}/days/a.csv", str(tmp_path / "days/b.csv")]):
        remote = table(path, cache)
        assert remote.fingerprint == local.fingerprint
    assert table(f"{tmp_path}/days/?.csv", cache).fingerprint == local.fingerprint
    assert table(f"{bucket}/days/*.csv", cache).name == "days"
    with pytest.raises(GenrecError, match="holds no table"):
        put(bucket, {"notes/x.md": "x"})
        _ = table(f"{bucket}/notes", cache).fingerprint


def test_parquet_of_a_store_is_streamed_from_its_copy(bucket: str, tmp_path: Path) -> None:
    frame = pl.read_csv(CLICKS.encode())
    frame.write_parquet(tmp_path / "clicks.parquet")
    put(bucket, {"clicks.parquet": (tmp_path / "clicks.parquet").read_bytes()})
    source = TableSource(path=f"{bucket}/clicks.parquet", cache_dir=str(tmp_path / "cache"), chunk_rows=7)
    assert source.streams and source.num_rows == frame.height
    assert pl.concat(source.chunks()).equals(frame)


def test_vectors_and_semantic_ids_of_a_store(bucket: str, tmp_path: Path) -> None:
    put(bucket, SHOP)
    dataset = shop(bucket, tmp_path / "cache")
    vectors = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    np.save(tmp_path / "v.npy", vectors)
    put(bucket, {"v.npy": (tmp_path / "v.npy").read_bytes()})
    cache = str(tmp_path / "cache")
    for path in (f"{bucket}/v.npy", "v.npy"):  # the second one in the folder of the data set
        encoder = FileEncoder(path=path, cache_dir=cache)
        assert encoder.exists(dataset) and np.array_equal(encoder.encode(dataset), vectors)
    assert not FileEncoder(path="gone.npy", cache_dir=cache).exists(dataset)
    with pytest.raises(GenrecError, match="does not exist"):
        FileEncoder(path=f"{bucket}/gone.npy", cache_dir=cache).encode(dataset)
    codes = np.arange(10).reshape(5, 2)
    SemanticIds(codes, (10, 10), 2).save(tmp_path / "ids.npz")
    put(bucket, {"ids.npz": (tmp_path / "ids.npz").read_bytes()})
    remote, local = (
        FileTokenizer(path=f"{bucket}/ids.npz", cache_dir=cache),
        FileTokenizer(path=str(tmp_path / "ids.npz")),
    )
    assert remote.content_key(dataset) == local.content_key(dataset) != ""
    context: object = None
    found = remote.fit(vectors, dataset.sequences.train, context)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(found.semantic_ids.codes, codes)


def test_what_is_computed_of_data_here_serves_for_the_same_data_elsewhere(bucket: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(5, dtype=np.float32))
    files = {**SHOP, "v.npy": (tmp_path / "v.npy").read_bytes()}
    put(bucket, files)
    put(tmp_path / "shop", files)
    cache, from_cache = tmp_path / "cache", []
    for place, options in ((str(tmp_path / "shop"), None), (bucket, {"anon": True})):
        node = {"path": f"{place}/v.npy", "cache_dir": str(cache), "storage_options": options}
        encoder = FileEncoder(path=node["path"], cache_dir=str(cache))
        config = {"_target_": "genrec.data.encoders.file.FileEncoder", **node}
        from_cache.append(item_vectors(config, lambda encoder=encoder: encoder, shop(place, cache), Cache(cache))[1])
    assert from_cache == [False, True]


RATINGS = "userId,movieId,rating,timestamp\n" + "".join(
    f"{user},{movie},{1 + (user + movie) % 5},{movie}\n" for user in range(1, 9) for movie in range(1, 8)
)
MOVIES = "movieId,title,genres\n" + "".join(f"{movie},Film {movie} (1999),Drama|War\n" for movie in range(1, 8))
PLAYS = "userID\tartistID\tweight\n" + "".join(f"{u}\t{a}\t{u * a}\n" for u in range(1, 8) for a in range(1, 8))
ARTISTS = "id\tname\n" + "".join(f"{artist}\tBand {artist}\n" for artist in range(1, 8))


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (MovieLensSource, {"ratings.csv": RATINGS, "movies.csv": MOVIES}),
        (LastFMSource, {"user_artists.dat": PLAYS, "artists.dat": ARTISTS}),
        (AmazonSource, {"interactions.csv": INTERACTIONS, "items.csv": ITEMS}),
    ],
)
def test_data_sets_with_a_source_below_a_remote_root(
    kind: type, files: Mapping[str, str | bytes], bucket: str, tmp_path: Path
) -> None:
    put(bucket, {**files, "README.txt": "terms of use"})
    put(tmp_path / "set", files)
    remote, local = (
        kind(path=str(path), cache_dir=str(tmp_path / "cache"), progress=False) for path in (bucket, tmp_path / "set")
    )
    assert Dataset(remote, LeaveOneOut()).fingerprint == Dataset(local, LeaveOneOut()).fingerprint
    assert not list((tmp_path / "cache").glob("**/README.txt"))
    with pytest.raises(GenrecError, match="download=true puts files into a folder of this machine"):
        kind(path=bucket, download=True, cache_dir=str(tmp_path / "cache")).load()
    with pytest.raises(GenrecError, match="does not exist"):
        kind(path=f"{bucket}/gone", cache_dir=str(tmp_path / "cache")).load()


def test_rows_of_movielens_below_a_remote_root(bucket: str, tmp_path: Path) -> None:
    put(bucket, {"ratings.csv": RATINGS, "movies.csv": MOVIES})
    source = MovieLensRatingsSource(path=bucket, cache_dir=str(tmp_path), progress=False)
    assert pl.concat(list(source.chunks())).height == 56


def test_a_remote_folder_without_the_files_of_a_data_set(bucket: str, tmp_path: Path) -> None:
    put(bucket, {"other.csv": "1"})
    with pytest.raises(GenrecError, match=r"Looked for ratings\.csv.*which holds other\.csv"):
        data_folder(bucket, ("ratings.csv",), tmp_path)


def test_the_copy_says_where_it_is_from(bucket: str, tmp_path: Path) -> None:
    put(bucket, SHOP)
    _ = shop(bucket, tmp_path).fingerprint
    told = [read_json(path)["address"] for path in tmp_path.glob("remote/*/origin.json")]
    assert sorted(told) == sorted([bucket, *(f"{bucket}/{name}.csv" for name in ("interactions", "items", "users"))])
