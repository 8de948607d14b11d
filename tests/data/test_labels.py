from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.labels import Label, chosen_labels, declared_labels, label_values


def values(column: list, **options) -> list:
    found = Label(name="y", column="c", **options).values(pl.Series("c", column))
    assert found.dtype == np.float32
    return [None if np.isnan(value) else float(value) for value in found]


def test_labels_of_zero_and_one():
    assert values([1, 0, None]) == [1, 0, None]
    assert values([True, False, None]) == [1, 0, None]
    assert values(["1", "0", "", " 1.0", "True", "false"]) == [1, 0, None, 1, 1, 0]
    assert values([1.0, 0.0, float("nan")]) == [1, 0, None]
    assert values(["1.0", "0.0", "NaN", "nan"]) == [1, 0, None, None]


def test_positive_values_are_compared_as_text():
    assert values([">50K", "<=50K", None, " >50K", ""], positive=">50K") == [1, 0, None, 1, None]
    assert values([3, 1, 2, None], positive=[3, 2]) == [1, 0, 1, None]
    assert values([3.0, 1.0, float("nan")], positive=3) == [1, 0, None]
    assert values(["3", "30"], positive=3) == [1, 0]
    assert values(["3.0", "1.0", "nan"], positive=3) == [1, 0, None]
    assert values(["True", "False"], positive=True) == [1, 0]
    assert values([True, False], positive=False) == [0, 1]


def test_threshold_and_regression():
    assert values([3, 4, None, 5], threshold=4) == [0, 1, None, 1]
    assert values(["3.5", "4", ""], threshold=4) == [0, 1, None]
    assert values(["3.5", "", "-1"], kind="regression") == [3.5, None, -1]


@pytest.mark.parametrize("column", [["yes", "no", "yes"], [1, 2, 1], [0.5, 0.0, 0.0]])
def test_a_column_that_is_not_binary_shows_its_values(column):
    with pytest.raises(GenrecError) as caught:
        values(column)
    message = str(caught.value)
    assert "data.labels.y" in message and f"'{column[0]}' (" in message and "2 values" in message
    assert "data.labels.y.positive=" in message and "threshold" in message


def test_labels_are_a_list_or_a_mapping():
    assert declared_labels(["a", "b"]) == {"a": Label(name="a", column="a"), "b": Label(name="b", column="b")}
    found = declared_labels({"visit": "v", "buy": {"given": "visit", "threshold": 1}, "spend": None})
    assert found["visit"].column == "v"
    assert found["buy"] == Label(name="buy", column="buy", given="visit", threshold=1)
    assert found["spend"].column == "spend"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "names nothing"),
        ({"y": {"positiv": 1}}, r"data\.labels\.y\.positiv: .*Did you mean positive"),
        ({"y": {"kind": "ranking"}}, r"data\.labels\.y\.kind=ranking"),
        ({"y": {"given": "z"}, "w": None}, r"data\.labels\.y\.given=z.*There are: w"),
        ({"y": {"given": "y"}}, r"data\.labels\.y\.given=y"),
        ({"y": {"given": "z"}, "z": {"kind": "regression"}}, r"data\.labels\.y\.given=z"),
        ({"y": {"kind": "regression", "positive": 1}}, "make a classification"),
        ({"y": {"threshold": 2, "positive": 1}}, "not both"),
    ],
)
def test_mistakes_in_labels(labels, message):
    with pytest.raises(GenrecError, match=message):
        declared_labels(labels)


def test_tasks_choose_among_labels():
    labels = declared_labels({"visit": None, "buy": {"given": "visit"}, "spend": {"kind": "regression"}})
    assert [label.name for label in chosen_labels(labels, None)] == ["visit", "buy", "spend"]
    assert [label.name for label in chosen_labels(labels, ["spend", "visit"])] == ["spend", "visit"]
    with pytest.raises(GenrecError, match=r"data\.tasks=\[visit,buy\]"):
        chosen_labels(labels, ["buy"])
    with pytest.raises(GenrecError, match=r"'vist'.*Did you mean visit"):
        chosen_labels(labels, ["vist"])
    for tasks in ([], ["visit", "visit"]):
        with pytest.raises(GenrecError, match="once"):
            chosen_labels(labels, tasks)


def test_what_is_given_another_is_none_without_it():
    """Nobody pays who does not buy, and nobody buys who does not click, in whatever order they are declared; a number
    is not 0 for that."""
    options = {"given": "click"}
    labels = declared_labels(
        {"pay": {"given": "buy"}, "buy": options, "click": None, "stars": {**options, "kind": "regression"}}
    )
    frame = pl.DataFrame(
        {
            "pay": [None, None, 1, None, None],
            "buy": [None, 0, 1, None, 1],
            "click": [0, 1, 1, None, 0],
            "stars": [None, 3, 5, None, None],
        }
    )
    found, taken = label_values(list(labels.values()), frame)
    nan = np.nan
    expected = [[0, 0, 0, nan], [0, 0, 1, 3], [1, 1, 1, 5], [nan, nan, nan, nan], [nan, 1, 0, nan]]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))
    assert taken.tolist() == [2, 1, 0, 0]
    without, _ = label_values(list(labels.values()), frame.drop("click"))
    assert np.isnan(without[0]).all()
