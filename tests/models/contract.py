"""What every retrieval model must do, as tests to inherit.

    class TestPopularity(RetrievalContract):
        def build(self, spec: DataSpec, max_history: int) -> nn.Module:
            return Popularity(spec, max_history=max_history)

The data: users walk round a ring of items, a step at a time, so what comes next is known. Item vectors are points on a
circle in the same order, and semantic IDs number the ring in base 3.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import IGNORE, DataSpec, HistoryBatch, Recommendations, Task
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView, history_batch
from genrec.semantic_ids import SemanticIds

NUM_ITEMS = 23
NUM_USERS = 40
SIZES = (3, 3, 3)


def no_history() -> HistoryBatch:
    """A user who has met nothing."""
    return HistoryBatch(torch.zeros(1, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))


def ring_view() -> SequencesView:
    """User u starts at item 5u and takes 5 to 12 steps; the last two are held out."""
    lengths = 5 + np.arange(NUM_USERS) % 8
    walks = [(5 * user + np.arange(length)) % NUM_ITEMS for user, length in enumerate(lengths)]
    parts = (Ragged.from_rows(walk[part] for walk in walks) for part in (slice(0, -2), slice(-2, -1), slice(-1, None)))
    return SequencesView(*parts, num_items=NUM_ITEMS)


def ring_spec() -> DataSpec:
    """What a model may know of the ring: the training part, a vector and a semantic ID per item."""
    angle = 2 * np.pi * np.arange(NUM_ITEMS) / NUM_ITEMS
    vectors = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], axis=1)
    codes = np.stack(np.unravel_index(np.arange(NUM_ITEMS), SIZES), axis=1)
    return DataSpec(
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        semantic_ids=SemanticIds(codes, SIZES, num_content_levels=2),
        item_vectors=vectors.astype(np.float32),
        train=ring_view().train,
    )


def histories(rows: list[list[int]], *, max_history: int = 50, filter_seen: bool = False) -> HistoryBatch:
    """A batch of the given histories, oldest item first."""
    return history_batch(np.arange(len(rows)), Ragged.from_rows(rows), max_history=max_history, filter_seen=filter_seen)


ROWS = [[4, 5, 6], [0], [21, 22, 0, 1, 2, 3], [9, 8, 7, 3], [11, 11, 11], [1, 3, 5, 7, 9, 11, 13]]


@contextmanager
def memory_of_nan() -> Iterator[None]:
    """``torch.empty`` gives nan, where it would give whatever the memory held before."""
    memory: Any = torch.utils.deterministic
    filled, enabled = memory.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(enabled, warn_only=warns)


class RetrievalContract:
    """Inherit, name the class Test..., and give ``build``."""

    MAX_HISTORY = 4

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        """The model under test, seeded by the caller, as small as it can be."""
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> Any:
        return self.seeded(0)

    def seeded(self, seed: int) -> Any:
        torch.manual_seed(seed)
        return self.build(ring_spec(), self.MAX_HISTORY).eval()

    @staticmethod
    def assert_same(first: Recommendations, second: Recommendations) -> None:
        assert first.items.tolist() == second.items.tolist()
        assert torch.allclose(first.scores, second.scores, atol=1e-5)

    def test_declares_what_trainers_ask_for(self, model: Any) -> None:
        assert isinstance(model, nn.Module)
        assert model.view in ("sequences", "tokens")
        assert model.task == Task.RETRIEVAL
        assert model.training_mode in ("windows", "positions", "users")
        assert model.max_history == self.MAX_HISTORY

    def test_weights_from_uninitialised_memory(self) -> None:
        """Fault of an original: two models of one seed differed."""
        with memory_of_nan():
            one, other = self.seeded(0), self.seeded(0)
        tensors = zip((*one.parameters(), *one.buffers()), (*other.parameters(), *other.buffers()), strict=True)
        assert all(not first.isnan().any() and torch.equal(first, second) for first, second in tensors)

    def test_shapes_and_types(self, model: Any) -> None:
        found = model.recommend(histories(ROWS), 5)
        assert found.items.shape == found.scores.shape == (len(ROWS), 5)
        assert found.items.dtype == torch.int64
        assert found.scores.is_floating_point()
        assert not found.scores.requires_grad

    def test_items_are_distinct_and_of_the_catalogue(self, model: Any) -> None:
        items = model.recommend(histories(ROWS), 10).items
        assert items.min() >= 0 and items.max() < NUM_ITEMS
        assert all(len(set(row)) == len(row) for row in items.tolist())

    def test_best_first_and_equal_scores_by_lower_item(self, model: Any) -> None:
        found = model.recommend(histories(ROWS), NUM_ITEMS)
        drop = found.scores[:, :-1] - found.scores[:, 1:]
        assert (drop >= 0).all()
        rising = found.items[:, :-1] < found.items[:, 1:]
        assert rising[drop == 0].all()

    def test_seen_items_never_come_back(self, model: Any) -> None:
        found = model.recommend(histories(ROWS, filter_seen=True), NUM_ITEMS).items.tolist()
        for history, items in zip(ROWS, found, strict=True):
            assert sorted(item for item in items if item != IGNORE) == sorted(set(range(NUM_ITEMS)) - set(history))

    def test_masking_keeps_the_order_of_the_rest(self, model: Any) -> None:
        free = model.recommend(histories(ROWS), NUM_ITEMS).items.tolist()
        masked = model.recommend(histories(ROWS, filter_seen=True), NUM_ITEMS).items.tolist()
        for history, all_items, unseen in zip(ROWS, free, masked, strict=True):
            assert [item for item in all_items if item not in history] == [item for item in unseen if item != IGNORE]

    def test_k_larger_than_the_catalogue(self, model: Any) -> None:
        found = model.recommend(histories(ROWS), NUM_ITEMS + 4)
        assert sorted(found.items[0].tolist()) == [IGNORE] * 4 + list(range(NUM_ITEMS))
        assert (found.items[:, NUM_ITEMS:] == IGNORE).all()
        assert (found.scores[:, NUM_ITEMS:] == -torch.inf).all()

    def test_everything_seen_leaves_nothing(self, model: Any) -> None:
        found = model.recommend(histories([list(range(NUM_ITEMS))], filter_seen=True), 3)
        assert found.items.tolist() == [[IGNORE] * 3]
        assert found.scores.tolist() == [[-torch.inf] * 3]

    def test_a_smaller_k_is_the_head_of_a_larger_one(self, model: Any) -> None:
        # At NUM_ITEMS a beam search prunes nothing, so this holds for every way of ranking.
        large = model.recommend(histories(ROWS), NUM_ITEMS + 1)
        small = model.recommend(histories(ROWS), NUM_ITEMS)
        assert large.items[:, :NUM_ITEMS].tolist() == small.items.tolist()

    def test_rows_do_not_depend_on_their_batch(self, model: Any) -> None:
        together = model.recommend(histories(ROWS, filter_seen=True), 6)
        for row, history in enumerate(ROWS):
            alone = model.recommend(histories([history], filter_seen=True), 6)
            self.assert_same(alone, Recommendations(together.items[row : row + 1], together.scores[row : row + 1]))

    def test_what_fills_the_padding_does_not_matter(self, model: Any) -> None:
        batch = histories(ROWS)
        padding = torch.arange(batch.items.shape[1]) >= batch.lengths[:, None]
        assert padding.any()
        other = replace(batch, items=batch.items.masked_fill(padding, 17))
        self.assert_same(model.recommend(batch, 6), model.recommend(other, 6))

    def test_only_the_last_max_history_items_count(self, model: Any) -> None:
        long = model.recommend(histories(ROWS), 6)
        cut = model.recommend(histories(ROWS, max_history=self.MAX_HISTORY), 6)
        other_past = model.recommend(histories([[18, 2, 19] * (len(row) > 3) + row[-4:] for row in ROWS]), 6)
        self.assert_same(long, cut)
        self.assert_same(long, other_past)

    def test_same_input_same_answer(self, model: Any) -> None:
        first, second = (model.recommend(histories(ROWS), 6) for _ in range(2))
        assert torch.equal(first.items, second.items)
        assert torch.equal(first.scores, second.scores)

    def test_recommending_changes_nothing(self, model: Any) -> None:
        model.train()  # a trainer evaluates between two epochs: neither dropout nor the mode may leak
        before = copy.deepcopy(model.state_dict())
        batch = histories(ROWS, filter_seen=True)
        given = copy.deepcopy(batch)
        in_training = model.recommend(batch, 6)
        assert model.training
        self.assert_same(in_training, model.eval().recommend(batch, 6))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(torch.equal(getattr(batch, name), getattr(given, name)) for name in ("items", "lengths", "seen"))

    def test_state_dict_round_trip(self, model: Any) -> None:
        other = self.seeded(1)
        other.load_state_dict(model.state_dict())
        self.assert_same(model.recommend(histories(ROWS), 6), other.recommend(histories(ROWS), 6))

    def test_recommending_follows_every_optimizer_step(self, model: Any) -> None:
        """Also those of fused optimizers, which change weights behind the back of PyTorch's version counters."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            return
        optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
        before = model.recommend(histories(ROWS), 6)
        plan = ring_view().train_plan(model.train(), batch_size=64, seed=0, epoch=1)
        model.recommend(histories(ROWS), 6)
        model.loss(plan[0]).total.backward()
        optimizer.step()
        after = model.eval().recommend(histories(ROWS), 6)
        fresh = self.seeded(1)
        fresh.load_state_dict(model.state_dict())
        self.assert_same(after, fresh.recommend(histories(ROWS), 6))
        assert not torch.allclose(before.scores, after.scores)

    def test_all_state_moves_with_the_model(self, model: Any) -> None:
        expected = model.recommend(histories(ROWS, filter_seen=True), 6)
        self.assert_same(expected, model.to("cpu").recommend(histories(ROWS, filter_seen=True).to("cpu"), 6))
        for name, tensor in model.to("meta").state_dict().items():
            assert tensor.device.type == "meta", f"{name} stayed behind"

    def test_held_out_items_cannot_matter(self) -> None:
        """Everything a model is built from is the training part: other held-out items, same model."""
        view = ring_view()
        changed = SequencesView(
            view.train, Ragged(view.val.values * 0 + 1, view.val.offsets), view.test, view.num_items
        )
        models = []
        for train in (view.train, changed.train):
            torch.manual_seed(0)
            models.append(self.build(replace(ring_spec(), train=train), self.MAX_HISTORY).state_dict())
        assert models[0].keys() == models[1].keys()
        assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())

    def test_learns_the_ring(self) -> None:
        """Trained for a moment, a model finds the next item; one without parameters must not claim a loss."""
        model = self.seeded(0)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            assert not hasattr(model, "loss")
            return
        model.train()
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        first = last = 0.0
        for epoch in range(8):
            plan = ring_view().train_plan(model, batch_size=64, seed=0, epoch=epoch)
            batches = [plan[index] for index in range(len(plan))]
            total = count = 0.0
            for batch in batches:
                losses = model.loss(batch)
                optimizer.zero_grad()
                losses.total.backward()
                optimizer.step()
                total += losses.total.item() * losses.count
                count += losses.count
            first, last = (total / count if epoch == 0 else first), total / count
        assert last < 0.7 * first
        untouched = [
            name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
        ]
        assert not untouched, f"no gradient reached {untouched}"
        found = model.eval().recommend(histories([[3, 4, 5], [10, 11], [20, 21, 22]]), 5).items.tolist()
        assert all(answer in items for answer, items in zip((6, 12, 0), found, strict=True))
