from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.columns import (
    Declared,
    DenseOptions,
    Guess,
    SequenceOptions,
    SparseOptions,
    as_ids,
    as_lists,
    as_numbers,
    check_columns,
)


def test_features_are_declared_in_short_or_with_options():
    declared = Declared({"age": "dense", "user": {"type": "sparse", "min_count": 3}, "x": "drop", "tags": "sequence"})
    assert declared.options == {
        "age": DenseOptions(),
        "user": SparseOptions(min_count=3),
        "x": None,
        "tags": SequenceOptions(),
    }


def test_options_of_a_type_hold_where_a_field_says_nothing():
    declared = Declared(
        {"a": "dense", "b": {"type": "dense", "transform": "none"}, "c": "sparse"},
        {"dense": {"transform": "log", "indicator": True}, "sparse": {}},
    )
    assert declared.options["a"] == DenseOptions(transform="log", indicator=True)
    assert declared.options["b"] == DenseOptions(transform="none", indicator=True)
    assert declared.options["c"] == SparseOptions()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"age": {"type": "dense", "transfrom": "log"}}, r"data\.features\.age\.transfrom.*Did you mean transform\?"),
        ({"age": "dens"}, r"data\.features\.age=dens.*Did you mean dense\?"),
        ({"age": {"transform": "log"}}, r"data\.features\.age\.type=null"),
        ({"age": {"type": "dense", "transform": "sqrt"}}, r"data\.features\.age\.transform=sqrt: expected one of none"),
        ({"user": {"type": "sparse", "min_count": 0}}, r"data\.features\.user\.min_count=0"),
        ({"user": {"type": "sparse", "hash": 10, "bucket": 4}}, "exclude each other"),
        ({"user": {"type": "sparse", "buckets": 4}}, "needs compression"),
        ({"price": {"type": "sparse", "bucket": 4, "table": "p"}}, "share no table"),
        ({"tags": {"type": "sequence", "pooling": "max"}}, r"data\.features\.tags\.pooling=max"),
        ({"x": {"type": "drop", "table": "t"}}, r"data\.features\.x\.type=drop"),
    ],
)
def test_mistakes_are_named_by_their_key(features, message):
    with pytest.raises(GenrecError, match=message):
        Declared(features)


def test_mistakes_in_options_of_a_type_are_named():
    with pytest.raises(GenrecError, match=r"data\.by_type\.dens.*Did you mean dense"):
        Declared({}, {"dens": {}})
    with pytest.raises(GenrecError, match=r"data\.by_type\.sparse\.mincount.*Did you mean min_count"):
        Declared({}, {"sparse": {"mincount": 2}})


def guess(values: list, *, text: bool = False, pieces: int = 1, dtype: pl.DataType | None = None) -> str:
    column = pl.Series("x", values, dtype=dtype)
    found = Guess(column.dtype, text=text)
    for begin in range(0, len(column), -(-len(column) // pieces)):
        found.add(column.slice(begin, -(-len(column) // pieces)))
    return found.decide()


@pytest.mark.parametrize("pieces", [1, 3])
def test_what_a_column_is_taken_for(pieces):
    texts = [str(i) for i in range(21)]
    assert guess(list(range(21)), pieces=pieces) == "dense"
    assert guess([*range(20), 0, None], pieces=pieces) == "sparse"
    assert guess([1.0, 2.0, None], pieces=pieces) == "dense"
    assert guess([True, False, True], pieces=pieces) == "sparse"
    assert guess([[1], [2, 3], []], pieces=pieces) == "sequence"
    assert guess([*texts, "", " 3 "], text=True, pieces=pieces) == "dense"
    assert guess([*texts, "x"], text=True, pieces=pieces) == "sparse"
    assert guess(["1", "2.5", ""], text=True, pieces=pieces) == "dense"
    assert guess(["1", "2", ""], text=True, pieces=pieces) == "sparse"
    assert guess(texts, pieces=pieces) == "sparse"  # strings of Parquet are strings
    assert guess([None, None, None], text=True, pieces=pieces, dtype=pl.String()) == "sparse"


def test_numbers_from_text_and_types():
    found = as_numbers(pl.Series("x", [" 1.5", "", None, "-2e3", "inf"]), "place")
    assert np.array_equal(found, [1.5, np.nan, np.nan, -2000, np.nan], equal_nan=True)
    assert as_numbers(pl.Series("x", [True, False]), "place").tolist() == [1.0, 0.0]
    with pytest.raises(GenrecError, match=r"data\.features\.x: x holds 2 values that are no numbers: 'a', 'b'\."):
        as_numbers(pl.Series("x", ["a", "b", "a", "1"]), "data.features.x")
    with pytest.raises(GenrecError, match="no number"):
        as_numbers(pl.Series("x", [[1]]), "data.features.x")


def test_ids_stay_exact():
    large = 2**53 + 1
    assert as_ids(pl.Series("x", [large, None]), "place").to_list() == [large, None]
    assert as_ids(pl.Series("x", ["007", "", " 7"]), "place").to_list() == ["007", None, "7"]
    assert as_ids(pl.Series("x", [1.0, None, float("nan")]), "place").to_list() == [1, None, None]
    with pytest.raises(GenrecError, match=r"Duration.*neither numbers nor text.*data\.drop=\[x\]"):
        as_ids(pl.Series("x", [1], dtype=pl.Duration), "place")
    with pytest.raises(GenrecError, match=r"data\.features\.x\.bucket"):
        as_ids(pl.Series("x", [1.5]), "place")
    with pytest.raises(GenrecError, match="declare it as a sequence"):
        as_ids(pl.Series("x", [[1]]), "place")


def test_ids_do_not_depend_on_how_a_file_writes_them():
    assert as_ids(pl.Series("x", ["3.0", "-2.00", "v3.0", "3.10", "3"]), "place").to_list() == [
        *("3", "-2", "v3.0", "3.10", "3")
    ]
    flags = [True, False, None]
    assert as_ids(pl.Series("x", ["True", "FALSE", ""]), "place").equals(as_ids(pl.Series("x", flags), "place"))
    ids, _ = as_lists(pl.Series("x", ["1.0|2.0"]), "place", "|", 2)
    assert ids.to_list() == ["1", "2"]


def test_what_is_no_list_of_ids_says_so():
    with pytest.raises(GenrecError, match=r"Struct.*data\.drop=\[x\]"):
        as_lists(pl.Series("x", [{"a": 1}]), "place", None, 2)
    with pytest.raises(GenrecError, match=r"lists of List.*plain ids"):
        as_lists(pl.Series("x", [[[1]]]), "place", None, 2)


def test_quantiles_of_a_field_are_not_hashed_by_the_options_of_its_type():
    declared = Declared({"age": {"type": "sparse", "bucket": 5}, "user": "sparse"}, {"sparse": {"hash": 100}})
    assert declared.options["age"] == SparseOptions(bucket=5)
    assert declared.options["user"] == SparseOptions(hash=100)
    with pytest.raises(GenrecError, match="hash and bucket exclude each other"):
        Declared({"age": {"type": "sparse", "bucket": 5, "hash": 7}})


def test_lists_keep_their_last_ids_in_order():
    ids, lengths = as_lists(pl.Series("x", [[1, 2, 3], [], None, [4, None, 5]]), "place", None, 2)
    assert (ids.to_list(), lengths.tolist()) == ([2, 3, 4, 5], [2, 0, 0, 2])
    ids, lengths = as_lists(pl.Series("x", ["a|b|c", "", None, "d||e "]), "place", "|", 2)
    assert (ids.to_list(), lengths.tolist()) == (["b", "c", "d", "e"], [2, 0, 0, 2])
    with pytest.raises(GenrecError, match=r"place\.separator"):
        as_lists(pl.Series("x", ["a|b"]), "place", None, 2)


def test_a_column_that_is_not_there_is_named_with_its_nearest():
    with pytest.raises(GenrecError, match=r"data\.drop: t has no column 'agee'\. Did you mean age\? It has: age, user"):
        check_columns({"data.group": ["user"], "data.drop": ["agee"]}, ["age", "user"], "t")


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("user_id", "sparse"),
        ("id", "sparse"),
        ("itemId", "sparse"),
        ("ID", "sparse"),
        ("paid", "dense"),
        ("grid", "dense"),
    ],
)
def test_whole_numbers_are_ids_where_the_column_says_so(name, kind, text):
    """An id counts nothing, and one of 64 bits would lose digits as an amount."""
    column = pl.Series(name, range(10**9, 10**9 + 100)).cast(pl.String if text else pl.Int64)
    found = Guess(column.dtype, text=text)
    found.add(column)
    assert found.decide() == kind
