from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from genrec.contracts import IGNORE, DataSpec, GenrecError
from genrec.data.ragged import Ragged
from genrec.models.popularity import Popularity
from tests.models.contract import RetrievalContract, histories

# Counts of items 0..4: 1, 3, 0, 3, 2.
TRAIN = Ragged.from_rows([[1, 3, 4, 1], [3, 0, 1], [4, 3]])


class TestPopularity(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return Popularity(spec, max_history=max_history)


def test_known_answer() -> None:
    model = Popularity(DataSpec(num_users=3, num_items=5, train=TRAIN))
    found = model.recommend(histories([[2], [0]]), 5)
    assert found.items.tolist() == [[1, 3, 4, 0, 2]] * 2
    assert found.scores.tolist() == [[3, 3, 2, 1, 0]] * 2


def test_seen_items_make_room_for_the_next() -> None:
    model = Popularity(DataSpec(num_users=3, num_items=5, train=TRAIN))
    found = model.recommend(histories([[1, 4], [3], [0, 1, 3, 4]], filter_seen=True), 2)
    assert found.items.tolist() == [[3, 0], [1, 4], [2, IGNORE]]


def test_equals_a_full_ranking_of_all_counts() -> None:
    random = np.random.default_rng(0)
    train = Ragged.from_rows([random.integers(0, 50, 30) for _ in range(20)])
    counts = np.bincount(train.values, minlength=60)
    rows = [random.integers(0, 60, size).tolist() for size in (1, 10, 40)]
    found = Popularity(DataSpec(20, 60, train=train)).recommend(histories(rows, filter_seen=True), 15).items.tolist()
    for history, items in zip(rows, found, strict=True):
        ranked = [item for item in np.lexsort((np.arange(60), -counts)) if item not in history]
        assert items == ranked[:15]


def test_needs_training_data() -> None:
    with pytest.raises(GenrecError, match="training part"):
        Popularity(DataSpec(num_users=1, num_items=5))
