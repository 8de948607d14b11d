from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.ragged import Ragged

ROWS = [[3, 1, 4], [], [1], [5, 9, 2, 6]]
lists = st.lists(st.lists(st.integers(0, 99), max_size=7), max_size=8)


def as_lists(ragged):
    return [row.tolist() for row in ragged]


def test_rows_and_lengths():
    ragged = Ragged.from_rows(ROWS)
    assert as_lists(ragged) == ROWS
    assert len(ragged) == 4
    assert ragged.lengths.tolist() == [3, 0, 1, 4]
    assert ragged.row_of_value.tolist() == [0, 0, 0, 2, 3, 3, 3, 3]
    assert ragged.values.dtype == ragged.offsets.dtype == np.int64


def test_padding():
    ragged = Ragged.from_rows(ROWS)
    assert ragged.padded(-1).tolist() == [[3, 1, 4, -1], [-1] * 4, [1, -1, -1, -1], [5, 9, 2, 6]]
    assert ragged.padded(0, width=5).shape == (4, 5)


def test_parts_of_rows():
    rows = Ragged.from_rows(ROWS)
    assert as_lists(rows.between(np.array([1, 0, 0, 0]), np.array([9, 2, 0, 3]))) == [[1, 4], [], [], [5, 9, 2]]


def test_no_rows():
    assert as_lists(Ragged.from_rows([])) == []
    assert Ragged.from_rows([[], []]).padded(0).shape == (2, 0)


@given(rows=lists, count=st.integers(0, 9), data=st.data())
def test_take_and_last_equal_plain_python(rows, count, data):
    ragged = Ragged.from_rows(rows)
    assert as_lists(ragged.last(count)) == [row[len(row) - min(count, len(row)) :] for row in rows]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    assert as_lists(ragged.take(np.array(chosen, dtype=np.int64))) == [rows[i] for i in chosen]
