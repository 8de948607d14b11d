"""The checks that all encoders share."""

from typing import Any

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.encoders import checked_vectors, require_texts


def test_half_precision_and_integers_become_float32() -> None:
    for kind in (np.float16, np.float64, np.int64):
        vectors = checked_vectors(np.ones((2, 3), kind), num_items=2, origin="x")
        assert vectors.dtype == np.float32 and vectors.tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 2)), "found 3 rows, but the data set has 2 items"),
        (np.ones(2), "shape"),
        (np.ones((2, 0)), "shape"),
        (np.array([["a"], ["b"]]), "dtype"),
        (np.array([[1.0], [np.nan]]), "NaN or infinite values, the first is row 1"),
        (np.array([[1e300], [1.0]]), "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_vectors_are_refused_by_name_of_the_fault(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        checked_vectors(vectors, num_items=2, origin="x")


def test_missing_text_names_the_encoders_that_need_none(make_dataset: Any) -> None:
    with pytest.raises(GenrecError, match="encoder=collaborative"):
        require_texts(make_dataset(has_text=False), "tfidf")
