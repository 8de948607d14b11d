from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.columns import Declared
from genrec.data.fitted_features import FeatureFit, FittedFeatures, group_codes
from genrec.data.labels import declared_labels
from genrec.features import SequenceField, SparseField

FRAME = pl.DataFrame(
    {
        "age": ["20", "40", "", "60"],
        "user": ["u1", "u2", "u1", ""],
        "item": [2**62, 2**62 + 1, 2**62, 5],
        "seen": [[2**62], [], None, [5, 7, 5]],
        "zip": ["a", "b", "c", "d"],
        "price": [1.0, 2.0, 3.0, 4.0],
        "click": [0, 1, 1, None],
    }
)
FEATURES = {
    "age": {"type": "dense", "indicator": True},
    "user": {"type": "sparse", "min_count": 2},
    "item": "sparse",
    "seen": {"type": "sequence", "table": "item", "max_length": 2, "pooling": "attention"},
    "zip": {"type": "sparse", "hash": 100},
    "price": {"type": "sparse", "bucket": 2},
}


def fitted(features: dict | None = None, frame: pl.DataFrame = FRAME, **options) -> FittedFeatures:
    fit = FeatureFit(
        {name: item for name, item in Declared(features or FEATURES).options.items() if item is not None},
        list(declared_labels(["click"]).values()),
        options.pop("group", "user"),
    )
    fit.add(frame, np.arange(frame.height))
    return fit.finish()


def test_fields_have_the_sizes_and_tables_of_their_options():
    spec = fitted().spec
    assert spec.dense == ("age", "age_missing")
    assert spec.sparse == (
        SparseField(name="user", size=2, table="user"),
        SparseField(name="item", size=5, table="item"),
        SparseField(name="zip", size=101, table="zip"),
        SparseField(name="price", size=3, table="price"),
    )
    assert spec.sequences == (
        SequenceField(name="seen", size=5, table="item", max_length=2, pooling="attention", target="item"),
    )
    assert [(task.name, task.kind) for task in spec.tasks] == [("click", "classification")]
    assert spec.tasks[0].mean == pytest.approx(2 / 3) and spec.tasks[0].std == pytest.approx((2 / 9) ** 0.5)


def test_rows_worked_by_hand():
    rows = fitted().transform(FRAME)
    std = (800 / 3) ** 0.5
    assert rows.dense.tolist() == pytest.approx(np.array([[-20 / std, 0], [0, 0], [0, 1], [20 / std, 0]]))
    assert rows.sparse[:, 0].tolist() == [1, 0, 1, 0]  # u2 is too rare, the last is missing
    assert rows.sparse[:, 1].tolist() == [1, 4, 1, 2]
    assert rows.sparse[:, 3].tolist() == [1, 1, 2, 2]
    assert rows.labels[:3, 0].tolist() == [0, 1, 1] and np.isnan(rows.labels[3, 0])


def test_a_shared_vocabulary_counts_every_field():
    """2**62 stands there three times (twice as item, once seen), 5 twice (its first place in seen is cut)."""
    found = fitted()
    assert found.ids["item"].state()["values"] == [2**62, 5, 7, 2**62 + 1]
    lists = found.transform(FRAME).sequences[0]
    assert lists.padded(np.arange(4)).tolist() == [[1, -1], [-1, -1], [-1, -1], [3, 2]]


def test_new_rows_need_no_labels_and_may_hold_anything():
    found = fitted()
    new = pl.DataFrame(
        {"price": [None], "zip": [None], "seen": [[9, 5]], "item": ["5"], "user": ["u9"], "age": [40.0], "more": ["x"]}
    )
    rows = found.transform(new)
    assert rows.dense.tolist() == [[0.0, 0.0]]
    assert rows.sparse.tolist() == [[0, 2, 0, 0]]
    assert rows.sequences[0].values.tolist() == [0, 2]
    assert len(found.transform(new.with_columns(pl.lit(None).alias("seen"))).sequences[0].values) == 0
    assert np.isnan(rows.labels).all()
    assert len(found.transform(new.clear())) == 0
    with pytest.raises(GenrecError, match="the frame has no column 'age'"):
        found.transform(new.drop("age"))


def test_saved_features_transform_alike(tmp_path):
    found = fitted()
    found.save(tmp_path / "features.json")
    again = FittedFeatures.load(tmp_path / "features.json")
    assert again.spec == found.spec and again.state() == found.state()
    for name, array in found.transform(FRAME).arrays().items():
        assert np.array_equal(array, again.transform(FRAME).arrays()[name], equal_nan=True), name
    with pytest.raises(GenrecError, match="format 99"):
        FittedFeatures.from_state({**found.state(), "format": 99})


def test_chunks_fit_what_the_whole_fits():
    options = {name: item for name, item in Declared(FEATURES).options.items() if item is not None}
    fit = FeatureFit(options, list(declared_labels(["click"]).values()), "user")
    for begin in range(0, 4, 2):
        fit.add(FRAME.slice(begin, 2), np.arange(begin, begin + 2))
    found, whole = fit.finish(), fitted()
    assert {name: ids.state() for name, ids in found.ids.items()} == {n: ids.state() for n, ids in whole.ids.items()}
    np.testing.assert_allclose(found.transform(FRAME).dense, whole.transform(FRAME).dense, rtol=1e-6)


def test_compression_has_the_square_root_of_the_vocabulary_unless_told():
    frame = pl.DataFrame({"item": range(99), "click": [0, 1, 1] * 33})
    for given, expected in ((0, 10), (25, 25)):
        compressed = {"type": "sparse", "compression": "quotient_remainder", "buckets": given}
        [field] = fitted({"item": compressed}, frame, group=None).spec.sparse
        assert (field.size, field.compression, field.buckets) == (100, "quotient_remainder", expected)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"item": {"type": "sparse", "min_count": 2}, "seen": {"type": "sequence", "table": "item"}}, "min_count"),
        ({"seen": {"type": "sequence", "pooling": "attention"}, "item": "sparse"}, "name it with target.*item"),
        ({"seen": {"type": "sequence", "pooling": "attention", "target": "age"}, "age": "dense"}, "fields: none"),
        ({"age": "drop"}, "No column is left"),
        ({"item": "dense", "user": "dense"}, r"data\.features\.user: user holds 2 values that are no numbers"),
    ],
)
def test_what_does_not_fit_together_is_an_error(features, message):
    with pytest.raises(GenrecError, match=message):
        fitted(features)


def test_labels_that_cannot_be_learned_are_errors():
    with pytest.raises(GenrecError, match="missing in all training rows"):
        fitted(frame=FRAME.with_columns(pl.lit(None).cast(pl.Int64).alias("click")))
    fit = FeatureFit(
        {"item": Declared({"item": "sparse"}).options["item"]},  # pyright: ignore[reportArgumentType]
        list(declared_labels({"y": {"column": "user", "positive": "u3"}}).values()),
    )
    fit.add(FRAME, np.arange(4))
    with pytest.raises(GenrecError, match=r"none of the training rows are positive by positive=u3.*'u1' \(2 times\)"):
        fit.finish()


def test_constant_fields_are_known():
    frame = FRAME.with_columns(pl.lit("x").alias("user"), pl.lit(3).alias("price"))
    found = fitted({"user": "sparse", "price": "dense", "item": "sparse"}, frame)
    assert found.constant == ["price", "user"]


def test_groups_are_equal_where_values_are():
    codes = group_codes(pl.Series("g", ["a", "b", None, "a"]))
    assert codes[0] == codes[3] != codes[1] and codes.dtype == np.int64
    assert group_codes(pl.Series("g", [2**53 + 1, 2**53, -1])).tolist() == [2**53 + 1, 2**53, -1]
    chunks = [group_codes(pl.Series("g", column, dtype=pl.UInt64)) for column in ([5, 2**63 + 1], [5])]
    assert chunks[0][0] == chunks[1][0]


def test_rows_without_a_group_are_no_group_together():
    """As one user, rows of nobody would weigh in GAUC by their number."""
    codes = [group_codes(pl.Series("g", column), first) for column in (["a", None], [-1, None]) for first in (0, 2)]
    assert len({*(code[1] for code in codes[:2]), *(code[0] for code in codes)}) == 4
    features = fitted({"item": "sparse"}, FRAME, group="user")
    rows = features.transform(FRAME.with_columns(pl.lit(None, dtype=pl.String).alias("user")), first_row=4)
    assert rows.groups is not None and len(set(rows.groups.tolist())) == FRAME.height


def test_rows_are_the_same_from_text_and_from_types():
    typed = pl.DataFrame({"a": [1.0, None, 3.0, 3.0], "b": [True, False, None, True], "click": [1, 0, 1, 0]})
    text = pl.DataFrame(
        {"a": ["1.0", "", "3.0", "3"], "b": ["True", "False", "", "true"], "click": ["1", "0", "1", "0"]}
    )
    for options in ("sparse", {"type": "sparse", "hash": 1000}):
        for trained in (typed, text):
            features = fitted({"a": options, "b": options}, trained, group="a")
            assert np.array_equal(features.transform(typed).sparse, features.transform(text).sparse)
