"""Co-occurrence on logs small enough to count by hand."""

import numpy as np
import pytest

from genrec import cooccurrence
from genrec.contracts import GenrecError
from genrec.cooccurrence import cooccurrence_counts, cooccurrence_vectors
from genrec.data.ragged import Ragged


def test_counts_by_hand() -> None:
    train = Ragged.from_rows([[0, 1, 2, 3], [1, 0]])
    counts = cooccurrence_counts(train, num_items=5, window=2).toarray()
    expected = np.zeros((5, 5))
    for left, right, times in [(0, 1, 2), (0, 2, 1), (1, 2, 1), (1, 3, 1), (2, 3, 1)]:
        expected[left, right] = expected[right, left] = times
    np.testing.assert_array_equal(counts, expected)


def test_a_window_of_one_sees_neighbours_only_and_no_user_touches_another() -> None:
    counts = cooccurrence_counts(Ragged.from_rows([[0, 1], [2, 3], [3]]), num_items=4, window=1).toarray()
    assert counts[0, 1] == counts[2, 3] == 1
    assert counts.sum() == 4


def test_an_item_is_no_neighbour_of_itself() -> None:
    counts = cooccurrence_counts(Ragged.from_rows([[1, 1, 0, 1]]), num_items=2, window=3).toarray()
    np.testing.assert_array_equal(counts, [[0, 3], [3, 0]])


def test_vectors_factorise_log_counts_exactly_at_full_rank() -> None:
    train = Ragged.from_rows([[0, 1, 2], [2, 1, 3], [0, 3, 4]])
    vectors = cooccurrence_vectors(train, num_items=5, dim=5, window=1)
    logs = np.log1p(cooccurrence_counts(train, num_items=5, window=1).toarray())
    # X = U sqrt(S) gives X X^T = U S U^T, the matrix square root of (log counts)^2.
    values, basis = np.linalg.eigh(logs @ logs)
    np.testing.assert_allclose(vectors @ vectors.T, basis * np.sqrt(values.clip(0)) @ basis.T, atol=1e-5)


def test_vectors_are_deterministic_clipped_and_zero_for_items_never_met() -> None:
    train = Ragged.from_rows([[0, 1, 2], [2, 3, 1]])
    first = cooccurrence_vectors(train, num_items=6, dim=64, window=3, seed=3)
    assert first.shape == (6, 6) and first.dtype == np.float32
    np.testing.assert_array_equal(first, cooccurrence_vectors(train, num_items=6, dim=64, window=3, seed=3))
    np.testing.assert_allclose(first[4:], 0, atol=1e-5)


def test_no_neighbours_at_all_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(GenrecError, match="collaborative_dim=0"):
        cooccurrence_vectors(Ragged.from_rows([[0], [1]]), num_items=2, dim=2)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"window": 0}])
def test_sizes_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(GenrecError, match="at least 1"):
        cooccurrence_vectors(Ragged.from_rows([[0, 1]]), num_items=2, **wrong)


@pytest.mark.parametrize("dim", [3, 12])
def test_a_large_catalogue_has_the_same_products(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    """Factors are known up to a rotation, so their products are compared; of a matrix of lower rank the rest is 0."""
    rng = np.random.default_rng(0)
    group = np.repeat(rng.integers(4, size=60), 8)
    train = Ragged.from_lengths(group * 10 + rng.integers(10, size=len(group)), np.full(60, 8))
    plain = cooccurrence_vectors(train, num_items=50, dim=dim)
    monkeypatch.setattr(cooccurrence, "_LARGE", 10)
    monkeypatch.setattr(cooccurrence, "_CHUNK", 7)
    large = cooccurrence_vectors(train, num_items=50, dim=dim)
    assert large.shape == plain.shape == (50, dim) and large.dtype == np.float32
    np.testing.assert_allclose(large @ large.T, plain @ plain.T, atol=2e-2 * np.abs(plain @ plain.T).max())
    assert np.array_equal(large, cooccurrence_vectors(train, num_items=50, dim=dim))
    assert not large[40:].any(), "items that nobody met have nothing"


def test_a_large_catalogue_of_few_pairs_has_zeros_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_LARGE", 2)
    train = Ragged.from_rows([[0, 1], [0, 1], [2, 3]])
    large = cooccurrence_vectors(train, num_items=6, dim=5)
    assert large.shape == (6, 5) and np.isfinite(large).all() and not large[4:].any()
    assert np.abs(large[:4]).sum(axis=1).min() > 0.1
