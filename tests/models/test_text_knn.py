from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.text_knn import TextKNN
from tests.models.contract import RetrievalContract, histories

VECTORS = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])


def spec(vectors: np.ndarray = VECTORS) -> DataSpec:
    return DataSpec(num_users=1, num_items=len(vectors), item_vectors=vectors.astype(np.float32))


class TestTextKNN(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return TextKNN(spec, max_history=max_history)


def test_cosine_to_the_last_item() -> None:
    found = TextKNN(spec()).recommend(histories([[3, 0]], filter_seen=True), 5)
    assert found.items.tolist()[0][:3] == [1, 2, 4]  # 3/5, then 0 twice: the zero vector ties with a right angle
    assert found.scores[0, :3].tolist() == pytest.approx([3 / 5, 0, 0])


def test_history_fades_by_decay() -> None:
    # 0.5 * (1, 0) + 1 * (0, 1), of length sqrt(5) / 2
    found = TextKNN(spec(), max_history=2, decay=0.5).recommend(histories([[0, 2]]), 5)
    scores = dict(zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True))
    length = np.sqrt(5) / 2
    assert scores == pytest.approx(
        {0: 0.5 / length, 1: (0.5 * 3 / 5 + 4 / 5) / length, 2: 1 / length, 3: -0.5 / length, 4: 0}, abs=2e-6
    )


def test_equal_vectors_tie_by_lower_item() -> None:
    vectors = np.random.default_rng(0).normal(size=(1, 384)).repeat(101, axis=0)
    vectors[50] = np.random.default_rng(1).normal(size=384)
    found = TextKNN(spec(vectors)).recommend(histories([[50]], filter_seen=True), 100)
    assert found.items.tolist() == [[*range(50), *range(51, 101)]]


@pytest.mark.parametrize("arguments", [{"max_history": 0}, {"decay": 1.5}])
def test_mistakes_are_named(arguments: dict) -> None:
    with pytest.raises(GenrecError, match=next(iter(arguments))):
        TextKNN(spec(), **arguments)


def test_needs_item_vectors() -> None:
    with pytest.raises(GenrecError, match="encoder"):
        TextKNN(DataSpec(num_users=1, num_items=5))
