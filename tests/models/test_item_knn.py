from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch
from genrec.data.ragged import Ragged
from genrec.models import item_knn
from genrec.models.item_knn import ItemKNN
from tests.models.contract import RetrievalContract, histories, no_history

TRAIN = Ragged.from_rows([[0, 1, 2], [0, 1, 3], [4, 0], [2]])  # counts of items 0..5: 3, 2, 2, 1, 1, 0


def spec(train: Ragged = TRAIN, num_items: int = 6) -> DataSpec:
    return DataSpec(num_users=len(train), num_items=num_items, train=train)


def scores_of(model: ItemKNN, history: list[int], num_items: int = 6) -> dict[int, float]:
    found = model.recommend(histories([history]), num_items)
    return dict(zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True))


def test_without_a_history_every_way_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ItemKNN(spec())
    few = model.recommend(no_history(), 3)
    monkeypatch.setattr(item_knn, "_LARGE", 2)
    many = model.recommend(no_history(), 3)
    assert torch.equal(few.items, many.items) and torch.equal(few.scores, many.scores)


class TestItemKNN(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return ItemKNN(spec, max_history=max_history)


class TestCosineItemKNN(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return ItemKNN(
            spec, similarity="cosine", distance_weight="none", direction="both", window=None, max_history=max_history
        )


def test_forward_counts_what_came_after() -> None:
    scores = scores_of(ItemKNN(spec()), [0])
    assert {item: scores[item] for item in (1, 2, 3)} == {1: 2.0, 2: 1 / 2, 3: 1 / 2}
    assert all(scores[item] < 0 for item in (0, 4, 5))  # 4 came before


def test_both_directions() -> None:
    scores = scores_of(ItemKNN(spec(), direction="both", distance_weight="none"), [0])
    assert {item: scores[item] for item in (1, 2, 3, 4)} == {1: 2.0, 2: 1.0, 3: 1.0, 4: 1.0}


def test_cosine_divides_by_the_root_of_both_counts() -> None:
    model = ItemKNN(spec(), similarity="cosine", direction="both", distance_weight="none")
    scores = scores_of(model, [0])
    assert {item: scores[item] for item in (1, 2, 3, 4)} == pytest.approx(
        {1: 2 / sqrt(6), 2: 1 / sqrt(6), 3: 1 / sqrt(3), 4: 1 / sqrt(3)}
    )


def test_window_limits_the_distance() -> None:
    assert scores_of(ItemKNN(spec(), window=1), [0])[2] < 0


def test_recent_items_count_more() -> None:
    scores = scores_of(ItemKNN(spec(), decay=0.25), [0, 1])
    assert scores[2] == pytest.approx(0.25 * 1 / 2 + 1.0)
    assert scores_of(ItemKNN(spec(), decay=0.0), [0, 1])[2] == pytest.approx(1.0)


def test_num_neighbors_keeps_the_most_similar() -> None:
    model = ItemKNN(spec(), num_neighbors=2)
    assert model.offsets.tolist() == [0, 2, 4, 4, 4, 5, 5]
    assert model.neighbors.tolist() == [1, 2, 2, 3, 0]  # 2 and 3 tie for item 0: the lower item is kept
    assert model.weights.tolist() == [2.0, 0.5, 1.0, 1.0, 1.0]


def test_items_without_a_neighbour_follow_by_popularity() -> None:
    found = ItemKNN(spec()).recommend(histories([[4]], filter_seen=True), 5)
    assert found.items.tolist() == [[0, 1, 2, 3, 5]]
    assert (found.scores[0] > 0).tolist() == [True, False, False, False, False]


def test_an_item_is_no_neighbour_of_itself() -> None:
    model = ItemKNN(spec(Ragged.from_rows([[2, 2, 1, 2]]), 3), direction="both", distance_weight="none")
    assert scores_of(model, [2], 3) == {1: 3.0, 2: pytest.approx(-1 / 5), 0: pytest.approx(-1 / 2)}


@pytest.mark.parametrize("pairs_at_once", [1, 1 << 23])
@pytest.mark.parametrize("window", [None, 3])
def test_equals_counting_pairs_one_by_one(
    window: int | None, pairs_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_knn, "_PAIRS_AT_ONCE", pairs_at_once)
    random = np.random.default_rng(3)
    rows = [random.integers(0, 12, length).tolist() for length in (0, 1, 2, 5, 9, 14)]
    model = ItemKNN(spec(Ragged.from_rows(rows), 12), window=window, num_neighbors=12)
    expected: Counter[tuple[int, int]] = Counter()
    for row in rows:
        for first in range(len(row)):
            for second in range(first + 1, min(len(row), first + 1 + (window or len(row)))):
                if row[first] != row[second]:
                    expected[row[first], row[second]] += 1 / (second - first)  # pyright: ignore[reportArgumentType]
    owner = torch.repeat_interleave(torch.arange(12), model.offsets.diff()).tolist()
    found = dict(zip(zip(owner, model.neighbors.tolist(), strict=True), model.weights.tolist(), strict=True))
    assert found == pytest.approx(dict(expected))


def test_chunks_of_users_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[0], [0, 1], [4, 0], [5], [2, 3]]
    whole = ItemKNN(spec()).recommend(histories(rows, filter_seen=True), 4)
    monkeypatch.setattr(item_knn, "_SCORES_AT_ONCE", 1)
    single = ItemKNN(spec()).recommend(histories(rows, filter_seen=True), 4)
    assert whole.items.tolist() == single.items.tolist()
    assert torch.equal(whole.scores, single.scores)


def test_no_pairs_at_all_falls_back_to_popularity() -> None:
    train = Ragged.from_rows([[2], [2], [1]])
    assert ItemKNN(spec(train, 3)).recommend(histories([[0]]), 3).items.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_neighbors": 0},
        {"window": 0},
        {"decay": -0.1},
        {"similarity": "dot"},
        {"direction": "back"},
        {"max_history": 0},
    ],
)
def test_mistakes_are_named(arguments: dict) -> None:
    with pytest.raises(GenrecError, match=next(iter(arguments))):
        ItemKNN(spec(), **arguments)


def test_needs_training_data() -> None:
    with pytest.raises(GenrecError, match="training part"):
        ItemKNN(DataSpec(num_users=1, num_items=5))


@pytest.mark.parametrize("similarity", ["count", "cosine"])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("k", [3, 12])
def test_of_a_large_catalogue_only_reached_items_are_scored(
    monkeypatch: pytest.MonkeyPatch, similarity: Any, seen: bool, k: int
) -> None:
    """Lists and scores are those of scoring every item, also where neighbours are too few for a list."""
    rng = np.random.default_rng(3)
    train = Ragged.from_lengths(np.minimum(rng.geometric(0.1, size=200), 39), np.full(25, 8))
    spec = DataSpec(num_users=25, num_items=60, train=train)
    model = ItemKNN(spec, num_neighbors=4, similarity=similarity, window=3)
    items = torch.from_numpy(rng.integers(60, size=(30, 6)))
    lengths = torch.from_numpy(rng.integers(1, 7, size=30))
    hidden = torch.where(torch.rand(30, 6) < 0.3, IGNORE, items) if seen else None
    batch = HistoryBatch(torch.arange(30), items, lengths, hidden)
    plain = model.recommend(batch, k)
    rows: list[int] = []
    scored = ItemKNN._scores
    monkeypatch.setattr(
        ItemKNN, "_scores", lambda self, part, recency: rows.append(len(part)) or scored(self, part, recency)
    )
    monkeypatch.setattr(item_knn, "_LARGE", 10)
    monkeypatch.setattr(item_knn, "_EDGES_AT_ONCE", 100)
    large = model.recommend(batch, k)
    assert torch.equal(large.items, plain.items) and torch.equal(large.scores, plain.scores)
    assert sum(rows) < 30, "rows were scored over the whole catalogue although their neighbours suffice"
