from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.row_splits import ByColumn, RandomRows, check_parts
from genrec.data.splits import GlobalTime


@dataclass
class Column:
    """A table of one column."""

    values: pl.Series

    @property
    def num_rows(self) -> int:
        return len(self.values)

    def column(self, name: str, key: str) -> pl.Series:
        assert (name, key) == ("split", "split.column")
        return self.values

    def timestamps(self) -> np.ndarray:
        return self.values.to_numpy()


def numbered(count: int) -> Column:
    return Column(pl.Series(range(count)))


def test_random_rows_are_shares_and_a_function_of_seed_and_row():
    parts = RandomRows().row_parts(numbered(100_000))
    assert np.bincount(parts).tolist() == pytest.approx([80_000, 10_000, 10_000], rel=0.03)
    assert np.array_equal(RandomRows().row_parts(numbered(1000)), parts[:1000])
    assert (RandomRows(seed=1).row_parts(numbered(1000)) != parts[:1000]).any()


def test_the_test_rows_stay_when_validation_grows():
    small = RandomRows().row_parts(numbered(5000))
    large = RandomRows(train_ratio=0.6, val_ratio=0.3).row_parts(numbered(5000))
    assert np.array_equal(small == 2, large == 2)
    assert not (RandomRows(train_ratio=0.9, val_ratio=0.0).row_parts(numbered(5000)) == 1).any()


@pytest.mark.parametrize("ratios", [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5)])
def test_ratios_must_add_up(ratios):
    with pytest.raises(GenrecError, match="add up to 1"):
        RandomRows(train_ratio=ratios[0], val_ratio=ratios[1], test_ratio=ratios[2])


def test_a_column_says_the_part():
    table = Column(pl.Series(["train", "dev", "test", "other", None, " train"]))
    assert ByColumn(train=["train"], val=["dev"]).row_parts(table).tolist() == [0, 1, 2, 3, 3, 0]
    assert ByColumn(val=["dev"]).row_parts(table).tolist() == [0, 1, 2, 0, 0, 0]
    folds = Column(pl.Series([1, 2, 3, 4, 5]))
    assert ByColumn(train=[1, 2], val=["3"], test=[4, 5]).row_parts(folds).tolist() == [0, 0, 1, 2, 2]
    beside_missing = Column(pl.Series([1.0, 2.0, None]))
    assert ByColumn(train=[1], val=[], test=[2]).row_parts(beside_missing).tolist() == [0, 2, 3]


def test_values_are_compared_however_the_file_writes_them():
    for column in ([1.0, 2.0, None], ["1.0", "2.0", ""], [1, 2, None], ["True", "False", None]):
        value = True if column[0] == "True" else 1
        parts = ByColumn(test=[value], val_ratio=0.0).row_parts(Column(pl.Series("split", column)))
        assert parts.tolist() == [2, 0, 0]


def test_validation_rows_are_drawn_from_training_where_none_are_named():
    table = Column(pl.Series(["a"] * 8000 + ["test"] * 2000 + ["b"] * 100))
    parts = ByColumn(train=["a"]).row_parts(table)
    assert (parts[8000:10_000] == 2).all() and (parts[10_000:] == 3).all()
    assert (parts[:8000] == 1).mean() == pytest.approx(0.1, abs=0.02)


def test_values_that_are_not_there_are_named():
    with pytest.raises(GenrecError, match=r"split\.test=\[test\]: no row of split has it\. It holds b \(2 rows\)"):
        ByColumn().row_parts(Column(pl.Series(["a", "b", "b"])))
    with pytest.raises(GenrecError, match="one of train, val and test"):
        ByColumn(train=["a"], test=["a"])


def test_global_time_divides_rows_as_it_divides_interactions():
    parts = GlobalTime(val_from=0.5, test_from=0.8).row_parts(Column(pl.Series([5, 1, 2, 3, 4, 6, 7, 8, 9, 10])))
    assert parts.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert parts.dtype == np.uint8


def test_an_empty_part_is_an_error_unless_nothing_was_asked_for():
    with pytest.raises(GenrecError, match="no val rows among 2"):
        check_parts(np.array([0, 2]), RandomRows())
    check_parts(np.array([0, 2]), RandomRows(train_ratio=0.9, val_ratio=0.0))


def test_interactions_are_refused():
    for split in (RandomRows(), ByColumn()):
        with pytest.raises(GenrecError, match="split=leave_one_out"):
            split.split(None)
