from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from genrec.contracts import IGNORE, GenrecError
from genrec.trainers.ann import ANNIndex, _merged, ann_recall, require_faiss


def clusters(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Vectors near some of forty centres, as those of items are near those of their kind."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(40, width))
    return (centres[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, width))).astype(np.float32)


def best(users: np.ndarray, items: np.ndarray, k: int) -> list[set[int]]:
    """The k best items of every user, one product after the other."""
    rows = [np.array([max(float(one @ item) for one in np.atleast_2d(user)) for item in items]) for user in users]
    return [set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in rows]


def test_recall_is_the_share_of_the_best_that_was_found() -> None:
    items = np.eye(4, dtype=np.float32)
    users = np.array([[4, 3, 2, 1], [1, 2, 3, 4]], dtype=np.float32)  # the best two are 0 1, and 3 2
    assert ann_recall(users, items, np.array([[1, 0], [2, 3]]), 2) == 1.0
    assert ann_recall(users, items, np.array([[1, 3], [2, 3]]), 2) == 3 / 4
    assert ann_recall(users, items, np.array([[2, 3], [IGNORE, IGNORE]]), 2) == 0.0


def test_of_interests_the_largest_product_counts() -> None:
    items = np.eye(3, dtype=np.float32)
    users = np.array([[[5, 0, 0], [0, 1, 2]]], dtype=np.float32)  # scores 5, 1, 2
    assert ann_recall(users, items, np.array([[0, 2]]), 2) == 1.0
    assert ann_recall(users, items, np.array([[0, 1]]), 2) == 1 / 2


def test_an_item_that_ties_with_the_last_is_as_good() -> None:
    items = np.array([[2.0], [1.0], [1.0]], dtype=np.float32)
    for found in ([[0, 1]], [[0, 2]]):
        assert ann_recall(np.ones((1, 1), dtype=np.float32), items, np.array(found), 2) == 1.0


def test_lists_of_interests_are_merged_without_repetition() -> None:
    scores = np.array([[3.0, 2.0, 2.5, 1.0], [4.0, 3.0, 4.0, 3.0]])
    items = np.array([[7, 5, 9, 7], [1, 2, 1, IGNORE]])
    assert _merged(scores, items, 3).tolist() == [[7, 9, 5], [1, 2, IGNORE]]


def test_without_faiss_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(GenrecError, match=r'pip install "genrec\[faiss\]"'):
        require_faiss()


class TestWithFaiss:
    @pytest.fixture(autouse=True)
    def faiss(self) -> Any:
        return pytest.importorskip("faiss", reason="faiss is an optional dependency: pip install genrec[faiss]")

    @pytest.mark.parametrize("interests", [None, 3])
    def test_flat_is_exact(self, interests: int | None) -> None:
        items = clusters(60)
        users = clusters(8 * (interests or 1), seed=1).reshape(8, *([interests] if interests else []), 16)
        found = ANNIndex(items, "flat").search(users, 5)
        assert [set(row.tolist()) for row in found] == best(users, items, 5)
        assert ann_recall(users, items, found, 5) == 1.0

    @pytest.mark.parametrize("kind", ["ivf", "hnsw"])
    def test_others_find_most(self, kind: Any) -> None:
        items, users = clusters(2000), clusters(100, seed=1)
        recall = ann_recall(users, items, ANNIndex(items, kind).search(users, 10), 10)
        assert 0.6 < recall <= 1.0

    @pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
    def test_the_same_index_every_time_and_for_tiny_catalogues(self, kind: Any) -> None:
        for count in (3, 500):
            items, users = clusters(count), clusters(20, seed=1)
            lists = [ANNIndex(items, kind).search(users, 3) for _ in range(2)]
            assert np.array_equal(lists[0], lists[1]) and lists[0].dtype == np.int64

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(GenrecError, match="choose one of none, flat, ivf, hnsw"):
            ANNIndex(clusters(3), "annoy")  # pyright: ignore[reportArgumentType]
