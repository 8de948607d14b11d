"""Texts of items without a Python string for each of them."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.data.texts import Texts

COLUMN = ["red shoe", None, "", "blue hat", "naïve"]
EXPECTED = ["red shoe", "item 1", "item 2", "blue hat", "naïve"]


@pytest.fixture
def texts() -> Texts:
    return Texts(pl.Series(COLUMN), len(COLUMN), lambda item: f"item {item}")


def test_what_has_no_text_is_called_otherwise(texts: Texts) -> None:
    assert list(texts) == EXPECTED and texts == EXPECTED and texts != EXPECTED[:-1] and len(texts) == 5
    assert [texts[item] for item in range(5)] == EXPECTED
    assert texts[-1] == "naïve" and texts[1:4] == EXPECTED[1:4] and texts[::-2] == EXPECTED[::-2]
    with pytest.raises(IndexError):
        texts[5]


def test_without_a_column_every_item_is_called_otherwise() -> None:
    assert list(Texts(None, 3, str)) == ["0", "1", "2"]


def test_one_text_reads_one_value() -> None:
    """A catalogue of millions: asking for one title makes no list of all."""

    class Column:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def __getitem__(self, index: int) -> str:
            assert isinstance(index, int)
            self.asked.append(index)
            return "x"

    column = Column()
    texts = Texts(column, 10_000_000, str)  # pyright: ignore[reportArgumentType]
    assert texts[7_000_000] == "x" and column.asked == [7_000_000]
