from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torchmetrics.retrieval import (
    RetrievalHitRate,
    RetrievalMAP,
    RetrievalMRR,
    RetrievalNormalizedDCG,
    RetrievalPrecision,
    RetrievalRecall,
)

from genrec.contracts import IGNORE, GenrecError
from genrec.metrics.ranking import METRICS, RankingAccumulator, ndcg_at_k, ranking_metrics, recall_at_k


def one_user(recommended: list[int], targets: list[int], k: int, denominator: str = "relevant") -> dict[str, float]:
    values = ranking_metrics(torch.tensor([recommended]), torch.tensor([targets]), [k], denominator=denominator)
    return {name.split("@")[0]: float(value) for name, value in values.items()}


def test_known_answer() -> None:
    # Hits at ranks 2 and 4 of five places; three relevant items.
    found = one_user([7, 1, 8, 2, 9], [1, 2, 3], k=5)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 5)
    assert found["hit"] == 1
    assert found["mrr"] == pytest.approx(1 / 2)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["ndcg"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4)))


def test_cut_off_hides_what_stands_below_it() -> None:
    found = one_user([7, 8, 1], [1], k=2)
    assert set(found.values()) == {0.0}
    assert one_user([7, 8, 1], [1], k=3)["mrr"] == pytest.approx(1 / 3)


def test_more_targets_than_k() -> None:
    assert one_user([1, 2], [1, 2, 3, 4], k=2)["recall"] == pytest.approx(2 / 4)
    assert one_user([1, 2], [1, 2, 3, 4], k=2, denominator="min")["recall"] == 1
    assert one_user([1, 9], [1, 2, 3, 4], k=2, denominator="min")["recall"] == pytest.approx(1 / 2)
    assert one_user([1, 2], [1, 2, 3, 4], k=2)["ndcg"] == pytest.approx(1.0)
    assert one_user([1, 2], [1, 2, 3, 4], k=2)["map"] == pytest.approx(1.0)


def test_leave_one_out_recall_is_the_hit_rate() -> None:
    for target in range(4):
        found = one_user([2, 0, 1], [target], k=3)
        assert found["recall"] == found["hit"] == float(target < 3)


def test_lists_shorter_than_k_do_not_raise() -> None:
    found = one_user([4], [4, 5], k=10)
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["precision"] == pytest.approx(1 / 10)
    values = ranking_metrics(torch.zeros(1, 0, dtype=torch.int64), torch.tensor([[4]]), [10])
    assert all(value.item() == 0 for value in values.values())


def test_duplicates_in_a_list_count_once() -> None:
    assert one_user([1, 1, 2], [1, 2], k=3)["recall"] == 1
    assert one_user([1, 1, 1], [1, 2], k=3)["recall"] == pytest.approx(1 / 2)
    assert one_user([1, 1, 1], [1, 2], k=3)["ndcg"] == pytest.approx(1 / (1 + 1 / log2(3)))
    assert one_user([1, 1, 1], [1], k=3)["precision"] == pytest.approx(1 / 3)


def test_duplicate_targets_count_once() -> None:
    assert one_user([1, 9], [1, 1, 1], k=2) == one_user([1, 9], [1, IGNORE, IGNORE], k=2)


def test_ignore_is_never_a_hit() -> None:
    found = one_user([IGNORE, IGNORE, 1], [1, IGNORE, IGNORE], k=3)
    assert found["recall"] == 1
    assert found["mrr"] == pytest.approx(1 / 3)


def test_item_zero_is_an_item() -> None:
    assert one_user([0], [0], k=1)["recall"] == 1


def test_hit_is_not_micro_recall() -> None:
    # One user with nine targets and one found, one with one target not found: 1 of 10 targets, 1 of 2 users.
    accumulator = RankingAccumulator([2], metrics=("hit",))
    accumulator.update(torch.tensor([[0, 50], [60, 61]]), torch.tensor([list(range(9)), [70] + [IGNORE] * 8]))
    assert accumulator.compute() == {"hit@2": 0.5}


def test_users_without_targets_are_skipped_not_counted_as_zero() -> None:
    recommended = torch.tensor([[1, 2], [3, 4], [5, 6]])
    targets = torch.tensor([[1, IGNORE], [IGNORE, IGNORE], [9, IGNORE]])
    assert ranking_metrics(recommended, targets, [2])["recall@2"].isnan().tolist() == [False, True, False]
    accumulator = RankingAccumulator([2], keep_per_user=True)
    accumulator.update(recommended, targets)
    assert accumulator.count == 2
    assert accumulator.compute()["recall@2"] == 0.5
    assert accumulator.per_user()["recall@2"].tolist() == [1.0, 0.0]


def test_no_users_at_all() -> None:
    accumulator = RankingAccumulator([1, 5], keep_per_user=True)
    assert set(accumulator.compute().values()) == {0.0}
    accumulator.update(torch.zeros(0, 5, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64))
    assert accumulator.count == 0 and accumulator.per_user()["ndcg@5"].shape == (0,)


def test_batches_add_up_to_the_whole() -> None:
    random = np.random.default_rng(0)
    recommended = torch.from_numpy(random.integers(0, 30, (20, 10)))
    targets = torch.from_numpy(random.integers(-1, 30, (20, 4)))
    whole, parts = RankingAccumulator([5, 10], keep_per_user=True), RankingAccumulator([5, 10], keep_per_user=True)
    whole.update(recommended, targets)
    for begin in range(0, 20, 7):
        parts.update(recommended[begin : begin + 7], targets[begin : begin + 7])
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-12)
    np.testing.assert_array_equal(parts.per_user()["ndcg@10"], whole.per_user()["ndcg@10"])


def test_helpers_average_over_users() -> None:
    predictions = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    targets = torch.tensor([[2, 9], [6, IGNORE], [IGNORE, IGNORE]])
    assert recall_at_k(predictions, targets, 2) == pytest.approx((1 / 2 + 0) / 2)
    assert ndcg_at_k(predictions, targets, 3) == pytest.approx(((1 / log2(3)) / (1 + 1 / log2(3)) + 1 / log2(4)) / 2)
    assert recall_at_k(predictions, torch.full((3, 2), IGNORE), 2) == 0.0


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_equals_torchmetrics_and_sklearn(seed: int, k: int) -> None:
    num_items = 12
    random = np.random.default_rng(seed)
    order = random.permutation(num_items)
    relevant = random.choice(num_items, int(random.integers(1, num_items + 1)), replace=False)
    found = one_user(order.tolist(), relevant.tolist(), k)
    scores = np.empty(num_items)
    scores[order] = np.arange(num_items, 0, -1) / num_items
    labels = np.isin(np.arange(num_items), relevant)
    arguments = (torch.from_numpy(scores), torch.from_numpy(labels), torch.zeros(num_items, dtype=torch.int64))
    theirs = {
        "recall": RetrievalRecall(top_k=k),
        "precision": RetrievalPrecision(top_k=k),
        "hit": RetrievalHitRate(top_k=k),
        "mrr": RetrievalMRR(top_k=k),
        "ndcg": RetrievalNormalizedDCG(top_k=k),
    }
    for name, metric in theirs.items():
        assert found[name] == pytest.approx(float(metric(*arguments)), abs=1e-6), name
    assert found["ndcg"] == pytest.approx(ndcg_score(labels[None], scores[None], k=k))
    if k >= num_items:  # torchmetrics divides by the hits found, which is another definition for shorter lists
        assert found["map"] == pytest.approx(float(RetrievalMAP()(*arguments)), abs=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(GenrecError, match="k_values"):
        RankingAccumulator([])
    with pytest.raises(GenrecError, match="k_values"):
        RankingAccumulator([0, 5])
    with pytest.raises(GenrecError, match="denominator"):
        RankingAccumulator([5], denominator="max")
    with pytest.raises(GenrecError, match="auc"):
        RankingAccumulator([5], metrics=("recall", "auc"))
    with pytest.raises(ValueError, match="keep_per_user"):
        RankingAccumulator([5]).per_user()
    assert RankingAccumulator([5]).names == tuple(f"{name}@5" for name in METRICS)
