"""What the test keeps of each user and row, against metrics worked out by hand and the means that are reported."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from genrec.contracts import IGNORE, HistoryBatch, Recommendations, RowBatch
from genrec.data.dataset import Dataset
from genrec.features import TaskSpec
from genrec.models.popularity import Popularity
from genrec.trainers import evidence as module
from genrec.trainers.evaluation import evaluate_retrieval
from genrec.trainers.evidence import ListEvidence, RowEvidence, with_baselines


def batch_of(users: list[int]) -> HistoryBatch:
    one = torch.ones(len(users), dtype=torch.int64)
    return HistoryBatch(users=torch.tensor(users), items=one[:, None], lengths=one)


def test_means_over_users_are_the_metrics_of_the_test(cycle_dataset: Dataset) -> None:
    view, model = cycle_dataset.sequences, Popularity(cycle_dataset.spec)
    evidence = ListEvidence(view, [1, 5])
    metrics = evaluate_retrieval(model, view, "test", k_values=[1, 5], batch_size=5, progress=False, collect=evidence)
    table = evidence.table(cycle_dataset.log.user_ids)
    assert len(table) == 12
    for name in ("recall@1", "recall@5", "ndcg@5", "hit@5"):
        assert table[name].mean() == pytest.approx(metrics[f"test/{name}"], abs=1e-6)
    assert 0 < metrics["test/recall@5"] < 1


def test_rows_belong_to_their_users_whatever_the_order_of_batches(cycle_dataset: Dataset) -> None:
    view = cycle_dataset.sequences
    evidence = ListEvidence(view, [2])
    for users in ([7, 3], [0]):
        targets = torch.from_numpy(np.stack([view.test[user] for user in users]))
        items = torch.where(torch.tensor(users)[:, None] == 3, targets, targets + 1)  # only user 3 gets what is right
        evidence(batch_of(users), Recommendations(items, torch.zeros(len(users), 1)), targets)
    table = evidence.table(cycle_dataset.log.user_ids)
    assert table["user_id"].to_list() == [500, 503, 507]
    assert table["recall@2"].to_list() == [0.0, 1.0, 0.0]


def test_what_is_known_of_users_is_counted_in_the_training_part(cycle_dataset: Dataset) -> None:
    view = cycle_dataset.sequences
    evidence = ListEvidence(view, [1])
    targets = torch.from_numpy(np.stack([view.test[user] for user in (0, 1)]))
    evidence(batch_of([0, 1]), Recommendations(targets, torch.zeros(2, 1)), targets)
    table = evidence.table(cycle_dataset.log.user_ids)
    popularity = [int((view.train.values == view.test[user][0]).sum()) for user in (0, 1)]
    assert table["target_popularity"].to_list() == popularity
    assert table["history_length"].to_list() == [5, 5]  # four trained on, one validated on
    assert table["num_targets"].to_list() == [1, 1]


def test_users_without_targets_are_left_out(cycle_dataset: Dataset) -> None:
    evidence = ListEvidence(cycle_dataset.sequences, [1])
    evidence(
        batch_of([4, 5]), Recommendations(torch.tensor([[1], [2]]), torch.zeros(2, 1)), torch.tensor([[IGNORE], [2]])
    )
    assert evidence.metrics()["user"].to_list() == [5]


def test_samples_name_items_and_mark_hits(cycle_dataset: Dataset) -> None:
    view = cycle_dataset.sequences
    evidence = ListEvidence(view, [2], num_samples=12)
    targets = torch.from_numpy(np.stack([view.test[user] for user in range(12)]))
    items = torch.cat([(targets + 1) % 8, targets], dim=1)
    evidence(batch_of(list(range(12))), Recommendations(items, torch.tensor([[0.5, 0.25]]).expand(12, 2)), targets)
    samples = evidence.samples(cycle_dataset)
    assert [sample["user_id"] for sample in samples] == list(range(500, 512))
    first = samples[0]
    assert [item["title"] for item in first["history"]] == [f"Title {item}" for item in range(5)]
    assert first["targets"] == [{"item_id": "i105", "title": "Title 5"}]
    assert [(item["title"], item["score"], item["hit"]) for item in first["recommended"]] == [
        ("Title 6", 0.5, False),
        ("Title 5", 0.25, True),
    ]


def test_scores_that_are_no_numbers_are_left_empty(cycle_dataset: Dataset) -> None:
    evidence = ListEvidence(cycle_dataset.sequences, [3], num_samples=12)
    scores = torch.tensor([[0.5, float("nan"), float("-inf")]])
    evidence(batch_of([0]), Recommendations(torch.tensor([[1, 2, 3]]), scores), torch.tensor([[1]]))
    (sample,) = evidence.samples(cycle_dataset)
    assert [item["score"] for item in sample["recommended"]] == [0.5, None, None]  # JSON has neither


def test_sampled_users_follow_the_seed(cycle_dataset: Dataset) -> None:
    def drawn(seed: int) -> list[int]:
        return ListEvidence(cycle_dataset.sequences, [1], seed=seed, num_samples=3).sampled.tolist()

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1


def row_batch(labels: list[float], groups: list[int] | None = None) -> RowBatch:
    rows = len(labels)
    return RowBatch(
        dense=torch.zeros(rows, 0),
        sparse=torch.zeros(rows, 0, dtype=torch.int64),
        sequences=(),
        labels=torch.tensor(labels)[:, None],
        groups=None if groups is None else torch.tensor(groups),
    )


def test_rows_keep_label_prediction_and_group_in_their_order() -> None:
    evidence = RowEvidence([TaskSpec(name="click")])
    evidence(row_batch([1.0, 0.0], [4, 5]), {"click": torch.tensor([0.75, 0.25])})
    evidence(row_batch([float("nan")], [4]), {"click": torch.tensor([0.5])})
    table = evidence.table()
    assert table.columns == ["label/click", "group", "prediction/click"]
    assert table["prediction/click"].to_list() == [0.75, 0.25, 0.5]
    assert table["label/click"].is_nan().to_list() == [False, False, True]
    assert table["group"].to_list() == [4, 5, 4]


def test_tables_too_long_to_keep_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    evidence = RowEvidence([TaskSpec(name="click")])
    assert not evidence.complete
    evidence(row_batch([1.0, 0.0]), {"click": torch.zeros(2)})
    assert evidence.complete
    evidence(row_batch([1.0, 0.0]), {"click": torch.zeros(2)})
    assert not evidence.complete and len(evidence.labels) == 1


def test_baselines_stand_beside_by_user_or_row() -> None:
    table = pl.DataFrame({"user": [3, 1], "recall@1": [0.0, 1.0]})
    found = with_baselines(table, {"popularity": pl.DataFrame({"user": [1, 3], "recall@1": [0.25, 0.5]})}, "user")
    assert found["baseline/popularity/recall@1"].to_list() == [0.5, 0.25]
    rows = with_baselines(
        pl.DataFrame({"prediction/a": [0.1, 0.2]}), {"trees": pl.DataFrame({"prediction/a": [0.3, 0.4]})}, None
    )
    assert rows["baseline/trees/prediction/a"].to_list() == [0.3, 0.4]
