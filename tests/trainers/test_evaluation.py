from __future__ import annotations

from typing import Any

import pytest
import torch
from trainer_toys import toy_model, toy_view

from genrec.contracts import HistoryBatch, Recommendations
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.trainers.evaluation import (
    SharedBatches,
    WeightedMean,
    evaluate_retrieval,
    evaluating,
    memorisation_view,
    next_item_batch,
)
from genrec.trainers.world import World


class Fixed:
    """Recommends items 0, 1, 2 ... to everyone."""

    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        items = torch.arange(k).expand(len(batch.users), k)
        return Recommendations(items, -items.float())


def small_view() -> SequencesView:
    train = Ragged.from_rows([[5, 6, 2], [7], [8, 9]])
    return SequencesView(train, Ragged.from_rows([[0], [3], []]), Ragged.from_rows([[1], [9], [2]]), 10)


def test_known_answers() -> None:
    metrics = evaluate_retrieval(Fixed(), small_view(), "test", k_values=[1, 3], batch_size=2, progress=False)
    assert metrics["test/recall@1"] == 0.0
    assert metrics["test/recall@3"] == pytest.approx(2 / 3)  # items 1 and 2 at ranks 2 and 3
    assert metrics["test/mrr@3"] == pytest.approx((1 / 2 + 1 / 3) / 3)


def test_users_without_relevant_items_counted_as_0() -> None:
    metrics = evaluate_retrieval(Fixed(), small_view(), "val", k_values=[1], progress=False)
    assert metrics["val/recall@1"] == 1 / 2  # user 2 has no validation item


def test_no_user_gives_no_metrics() -> None:
    view = small_view()
    empty = Ragged.from_rows([[], [], []])
    assert evaluate_retrieval(Fixed(), SequencesView(view.train, empty, empty, 10), "val", progress=False) == {}


def test_memorisation_asks_for_training_items_only() -> None:
    view = memorisation_view(small_view())
    assert [row.tolist() for row in view.train] == [[5, 6], [7], [8]]
    assert [row.tolist() for row in view.val] == [[2], [], [9]]
    metrics = evaluate_retrieval(Fixed(), small_view(), "train", k_values=[3], progress=False)
    assert metrics["train/recall@3"] == 1 / 2


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    model, view = toy_model(), toy_view()
    expected = evaluate_retrieval(model, view, "test", batch_size=64, progress=False)
    assert evaluate_retrieval(model, view, "test", batch_size=batch_size, progress=False) == pytest.approx(expected)


def test_evaluation_users_re_sampled_unseeded() -> None:
    seen: list[list[int]] = []

    def collect(batch: HistoryBatch, found: Recommendations, targets: torch.Tensor) -> None:
        seen.append(batch.users.tolist())

    options: dict[str, Any] = {"max_users": 20, "progress": False, "collect": collect}
    for seed in (0, 0, 1):
        evaluate_retrieval(toy_model(), toy_view(), "val", seed=seed, **options)
    assert len(seen[0]) == 20
    assert seen[0] == seen[1] != seen[2]


def test_the_validation_loss_is_that_of_the_next_item() -> None:
    model, view = toy_model().eval(), toy_view()
    metrics = evaluate_retrieval(
        model, view, "val", loss=lambda model, batch: model.loss(batch), batch_size=50, progress=False
    )
    last = torch.tensor([int(row[-1]) for row in view.train])
    logits = model.out(model.norm(model.items(last)))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(view.val.values))
    assert metrics["val/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_next_item_batch() -> None:
    batch = HistoryBatch(torch.tensor([4, 5]), torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1]))
    rows = next_item_batch(batch, torch.tensor([[7, 8], [9, -1]]))
    assert rows.targets.tolist() == [[-1, -1, 7], [9, -1, -1]]


def test_seen_items_not_masked_where_the_protocol_says_so() -> None:
    found: list[tuple[HistoryBatch, Recommendations]] = []
    evaluate_retrieval(
        toy_model(), toy_view(), "test", filter_seen=True, progress=False, collect=lambda b, r, t: found.append((b, r))
    )
    for batch, lists in found:
        assert batch.seen is not None
        assert not (lists.items[:, :5, None] == batch.seen[:, None, :]).any()


def test_evaluation_leaves_modes_and_random_numbers_alone() -> None:
    model = toy_model().train()
    model.norm.eval()
    state = torch.get_rng_state()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        torch.rand(3)
    assert model.training and not model.norm.training
    assert torch.equal(torch.get_rng_state(), state)


def test_weighted_mean() -> None:
    mean = WeightedMean()
    assert mean.result() == {}
    mean.add({"a": torch.tensor(1.0)}, 1)
    mean.add({"a": torch.tensor(4.0)}, 2)
    assert mean.result() == {"a": 3.0}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_are_asked_to_give_way_equally_often(size: int) -> None:
    """Also those with fewer batches than others: they answer each other."""
    asked, taken = [], []
    for rank in range(size):
        times: list[int] = []
        batches = SharedBatches(range(5), World(rank=rank, size=size), lambda times=times: times.append(1))
        found = list(batches)
        assert len(batches) == len(found)
        asked.append(len(times))
        taken += found
    assert asked == [-(-5 // size)] * size and sorted(taken) == list(range(5))
