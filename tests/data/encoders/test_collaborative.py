"""Vectors from co-occurrence in the training part."""

from typing import Any

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.encoders.collaborative import CollaborativeEncoder


def test_needs_no_text_and_puts_items_met_together_close(make_dataset: Any) -> None:
    vectors = CollaborativeEncoder(dim=6, window=1).encode(make_dataset(has_text=False))
    lengths = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ vectors.T / np.outer(lengths, lengths)
    assert vectors.dtype == np.float32
    assert abs(cosine[0, 3]) < 1e-3  # never in one history, not even at two removes
    assert cosine[0, 2] > 0.5  # both follow or precede item 1


def test_held_out_items_do_not_leak(make_dataset: Any) -> None:
    encoder = CollaborativeEncoder(dim=4)
    first, second = encoder.encode(make_dataset(held_out=3)), encoder.encode(make_dataset(held_out=0))
    np.testing.assert_array_equal(first, second)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(GenrecError, match=r"encoder\.window"):
        CollaborativeEncoder(window=0)
