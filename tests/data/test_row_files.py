from __future__ import annotations

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.row_files import RowWriter, mapped_rows
from genrec.data.rows import Lists, Rows


def some_rows(begin: int, count: int, *, groups: bool = True) -> Rows:
    numbers = np.arange(begin, begin + count)
    lengths = numbers % 3
    lists = Lists(np.repeat(numbers, lengths).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    return Rows(
        dense=np.stack([numbers, -numbers], axis=1).astype(np.float32),
        sparse=np.zeros((count, 0), dtype=np.int32),
        sequences=(lists,),
        labels=numbers[:, None].astype(np.float32),
        groups=numbers if groups else None,
    )


def written(folder, sizes: list[int]) -> tuple[Rows, str]:
    writer = RowWriter(folder)
    for begin, count in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        writer.add(some_rows(int(begin), count))
    return writer.finish()


def same(one: Rows, other: Rows) -> bool:
    return all(
        np.array_equal(array, other.arrays()[name]) and array.dtype == other.arrays()[name].dtype
        for name, array in one.arrays().items()
    )


@pytest.mark.parametrize("in_files", [False, True])
def test_chunks_become_one_table(tmp_path, in_files):
    whole, content = written(tmp_path if in_files else None, [5, 1, 0, 14])
    assert same(whole, some_rows(0, 20))
    assert whole.mapped is in_files
    assert content == written(None, [20])[1]
    assert content != written(None, [19])[1]


def test_files_are_mapped_and_read_back(tmp_path):
    written(tmp_path, [7, 4])
    again = mapped_rows(tmp_path, 1, True)
    assert isinstance(again.dense, np.memmap)
    assert same(again, some_rows(0, 11))
    batch = again.take(np.array([10, 3, 5]))
    assert batch.sequences[0].tolist() == [[10, -1], [-1, -1], [5, 5]]
    assert batch.dense[:, 1].tolist() == [-10.0, -3.0, -5.0]


def test_many_appends_keep_the_header_readable(tmp_path):
    """The number of rows grows from one digit to four in the header that was written first."""
    whole, _ = written(tmp_path, [1] * 3 + [2000])
    assert np.array_equal(np.load(tmp_path / "labels.npy")[:, 0], np.arange(2003)) and len(whole) == 2003


def test_a_file_that_is_gone_says_what_to_do(tmp_path):
    written(tmp_path, [3])
    (tmp_path / "dense.npy").unlink()
    with pytest.raises(GenrecError, match=f"Delete {tmp_path}"):
        mapped_rows(tmp_path, 1, True)
