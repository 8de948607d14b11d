import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.large.arrays import array_file, open_array, save_array, save_ids


def test_an_array_comes_back_block_by_block(tmp_path):
    path = tmp_path / "a.npy"
    with array_file(path, 5, np.int32) as file:
        file.write(np.array([1, 2]))
        assert not path.exists()
        file.write(np.array([3, 4, 5]))
    found = open_array(path)
    assert isinstance(found, np.memmap) and found.dtype == np.int32
    np.testing.assert_array_equal(found, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found, np.load(path))


def test_an_array_that_is_not_whole_does_not_appear(tmp_path):
    with pytest.raises(RuntimeError, match="2 of 5"), array_file(tmp_path / "a.npy", 5, np.int32) as file:
        file.write(np.array([1, 2]))
    assert list(tmp_path.iterdir()) == []


def test_ids_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("genrec.data.large.arrays.BLOCK", 2)
    for ids in (["a", "long one", "ü", ""], [3, -7, 2**62]):
        save_ids(tmp_path / "ids.npy", pl.Series(ids))
        assert open_array(tmp_path / "ids.npy").tolist() == ids


def test_an_endless_id_is_refused(tmp_path):
    with pytest.raises(GenrecError, match=r"An id of user_id has 20,000 characters \(xxx"):
        save_ids(tmp_path / "ids.npy", pl.Series("user_id", ["a", "x" * 20_000]))


def test_empty_and_torn_arrays(tmp_path):
    save_array(tmp_path / "empty.npy", np.zeros(0))
    assert len(open_array(tmp_path / "empty.npy")) == 0
    save_array(tmp_path / "torn.npy", np.arange(100))
    content = (tmp_path / "torn.npy").read_bytes()
    (tmp_path / "torn.npy").write_bytes(content[:-300])
    with pytest.raises(GenrecError, match="torn"):
        open_array(tmp_path / "torn.npy")
    with pytest.raises(GenrecError, match="cannot be read"):
        open_array(tmp_path / "absent.npy")
