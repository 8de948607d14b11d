"""Vectors from files: every format, ids, and what can be wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.artifacts import Cache
from genrec.contracts import GenrecError
from genrec.data.encoders.file import FileEncoder
from genrec.stages import item_vectors

VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)
IDS = np.array([15, 99, 10, 11, 12, 13, 14])  # the data set knows 10..15
ROWS = np.array([[5, 5], [9, 9], [0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], dtype=np.float32)
BY_ID = np.repeat(np.arange(6, dtype=np.float32)[:, None], 2, axis=1)


def test_npy_in_half_precision(tmp_path: Path, dataset: Any) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float16))
    vectors = FileEncoder(path=str(tmp_path / "v.npy")).encode(dataset)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, VECTORS)


def test_a_relative_path_is_found_in_the_folder_of_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_dataset: Any
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "source" / "v.npy", VECTORS)
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(
        FileEncoder(path="v.npy").encode(make_dataset(source_folder=tmp_path / "source")), VECTORS
    )
    with pytest.raises(GenrecError, match=r"No item vectors at .*v\.npy"):
        FileEncoder(path="v.npy").encode(make_dataset())


def test_npz_and_parquet_rows_are_matched_by_id(tmp_path: Path, dataset: Any) -> None:
    np.savez(tmp_path / "v.npz", vectors=ROWS, item_id=IDS)
    pl.DataFrame({"item_id": IDS.astype(str), "vector": ROWS.tolist()}).write_parquet(tmp_path / "v.parquet")
    pl.DataFrame({"item_id": IDS, "a": ROWS[:, 0], "b": ROWS[:, 1]}).write_parquet(tmp_path / "wide.parquet")
    array = pl.Series("vector", ROWS.tolist(), dtype=pl.Array(pl.Float32, 2))
    pl.DataFrame({"item_id": IDS, "vector": array}).write_parquet(tmp_path / "array.parquet")
    for name in ("v.npz", "v.parquet", "wide.parquet", "array.parquet"):
        np.testing.assert_array_equal(FileEncoder(path=str(tmp_path / name)).encode(dataset), BY_ID, err_msg=name)


def test_column_chooses_among_several(tmp_path: Path, dataset: Any) -> None:
    np.savez(tmp_path / "v.npz", text=VECTORS, image=VECTORS + 1)
    with pytest.raises(GenrecError, match=r"text, image.*encoder\.column"):
        FileEncoder(path=str(tmp_path / "v.npz")).encode(dataset)
    chosen = FileEncoder(path=str(tmp_path / "v.npz"), column="image").encode(dataset)
    np.testing.assert_array_equal(chosen, VECTORS + 1)
    with pytest.raises(GenrecError, match="has no 'sound'"):
        FileEncoder(path=str(tmp_path / "v.npz"), column="sound").encode(dataset)


@pytest.mark.parametrize(
    ("ids", "message"),
    [(np.arange(20, 27), "6 of 6 items have no vector, for example 10"), (np.array([10] * 7), "occur more than once")],
)
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, dataset: Any, ids: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "v.npz", vectors=ROWS, item_id=ids)
    with pytest.raises(GenrecError, match=message):
        FileEncoder(path=str(tmp_path / "v.npz")).encode(dataset)


def test_broken_files_are_refused(tmp_path: Path, dataset: Any) -> None:
    np.save(tmp_path / "short.npy", VECTORS[:4])
    (tmp_path / "junk.npy").write_bytes(b"no array")
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (tmp_path / "v.csv").write_text("1,2")
    pl.DataFrame({"vector": [[1.0], [1.0, 2.0]]}).write_parquet(tmp_path / "ragged.parquet")
    for name, message in {
        "short.npy": "found 4 rows, but the data set has 6 items",
        "junk.npy": "could not be read",
        "objects.npy": "could not be read",
        "v.csv": "must end in",
        "ragged.parquet": "differ in length",
    }.items():
        with pytest.raises(GenrecError, match=message):
            FileEncoder(path=str(tmp_path / name)).encode(dataset)


def test_cached_vectors_do_not_outlive_the_file_they_came_from(tmp_path: Path, make_dataset: Any) -> None:
    path, cache = tmp_path / "v.npy", Cache(tmp_path / "cache")
    dataset = make_dataset()
    dataset.fingerprint = "tiny"

    def staged() -> tuple[np.ndarray, bool]:
        return item_vectors({"path": str(path)}, lambda: FileEncoder(path=str(path)), dataset, cache)

    np.save(path, VECTORS)
    assert [staged()[1], staged()[1]] == [False, True]
    np.save(path, VECTORS + 1)
    np.testing.assert_array_equal(staged()[0], VECTORS + 1)
