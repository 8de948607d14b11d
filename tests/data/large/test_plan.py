"""Batches of sequences on disk: every target once, any batch from its number alone, in little memory."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from genrec.contracts import IGNORE
from genrec.data.large.plan import BlockPlan, LargeSequences, Shuffling
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencePlan, SequencesView


@dataclass
class Model:
    max_history: int = 6
    training_mode: str = "windows"


def view(users: int = 200, seed: int = 0, **shuffling: int) -> LargeSequences:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, 15, users)
    train = Ragged.from_lengths(draw.integers(0, 50, lengths.sum()).astype(np.int32), lengths)
    nothing = Ragged(train.values[:0], np.zeros(users + 1, dtype=np.int64))
    options = {"block_values": 64, "blocks": 3, **shuffling}
    return LargeSequences(train, nothing, nothing, 50, content="x", shuffling=Shuffling(**options))


def targets(plan) -> Counter:
    """Of each scored target its user, the items before it that the model sees, and itself."""
    found: Counter = Counter()
    for batch in (plan[index] for index in range(len(plan))):
        assert batch.items.dtype == batch.targets.dtype == torch.int64
        for row in range(len(batch.users)):
            for place in torch.nonzero(batch.targets[row] != IGNORE).flatten().tolist():
                seen = tuple(batch.items[row, : place + 1].tolist())
                found[int(batch.users[row]), seen, int(batch.targets[row, place])] += 1
    return found


@pytest.mark.parametrize("mode", ["windows", "positions", "users"])
@pytest.mark.parametrize("batch_size", [4, 32])
def test_it_trains_on_what_a_plan_in_memory_trains_on(mode, batch_size):
    model, data = Model(training_mode=mode), view()
    ours = data.train_plan(model, batch_size=batch_size, seed=1, epoch=1)
    whole = SequencesView(data.train, data.val, data.test, data.num_items)
    theirs = whole.train_plan(model, batch_size=batch_size, seed=1, epoch=1)
    assert isinstance(theirs, SequencePlan)
    assert targets(ours) == targets(theirs)
    assert len(ours.buffers) > 3


def test_a_batch_is_a_function_of_its_number():
    data = view()
    plan = data.train_plan(Model(), batch_size=16, seed=1, epoch=2)
    in_order = [plan[index] for index in range(len(plan))]
    for index in np.random.default_rng(0).permutation(len(plan)).tolist():
        fresh = data.train_plan(Model(), batch_size=16, seed=1, epoch=2)[index]
        for name in ("users", "items", "lengths", "targets"):
            assert torch.equal(getattr(fresh, name), getattr(in_order[index], name))


def test_epochs_and_seeds_differ_and_batches_have_about_their_size():
    data = view(users=2000)
    plans = [
        data.train_plan(Model(), batch_size=16, seed=seed, epoch=epoch) for seed, epoch in ((1, 1), (1, 2), (2, 1))
    ]
    firsts = [plan[0].users.tolist() for plan in plans]
    assert firsts[0] != firsts[1] != firsts[2] != firsts[0]
    sizes = [int((plans[0][index].targets != IGNORE).sum()) for index in range(len(plans[0]))]
    assert max(sizes) == 16
    assert np.mean(sizes) > 10


def test_rows_of_far_apart_users_meet_in_a_batch():
    plan = view(users=4000, blocks=8).train_plan(Model(), batch_size=256, seed=1, epoch=1)
    spread = [int(plan[index].users.max() - plan[index].users.min()) for index in range(len(plan))]
    assert np.median(spread) > 1000


def test_only_a_few_buffers_are_planned_at_a_time(monkeypatch):
    data = view(users=2000)
    plan = data.train_plan(Model(), batch_size=16, seed=1, epoch=1)
    asked: list[int] = []
    original = BlockPlan.rows

    def counted(self: BlockPlan, buffer: int):
        asked.append(buffer)
        return original(self, buffer)

    monkeypatch.setattr(BlockPlan, "rows", counted)
    for index in range(len(plan)):
        _ = plan[index]
        assert len(plan._planned) <= 2
    assert asked == sorted(set(asked))  # each once, in turn
    with pytest.raises(IndexError):
        _ = plan[len(plan)]


def test_a_user_longer_than_a_block_is_whole():
    values = np.arange(1000) % 50
    train = Ragged.from_lengths(values, np.array([3, 900, 97]))
    nothing = Ragged(values[:0], np.zeros(4, dtype=np.int64))
    data = LargeSequences(train, nothing, nothing, 50, content="x", shuffling=Shuffling(64, 1))
    plan = data.train_plan(Model(training_mode="positions"), batch_size=32, seed=1, epoch=1)
    assert sum(targets(plan).values()) == 2 + 899 + 96


@pytest.mark.parametrize("mode", ["windows", "positions", "users"])
def test_processes_cut_their_own_rows_of_the_same_batches(mode):
    plan = view().train_plan(Model(training_mode=mode), batch_size=16, seed=1, epoch=1)
    for index in range(len(plan)):
        for rank in range(3):
            wanted, found = plan[index].take(slice(rank, None, 3)), plan.share(index, rank, 3)
            if not len(wanted.users):
                assert found is None
                continue
            assert found is not None and found.whole is not None and wanted.whole is not None
            width = found.items.shape[1]
            assert torch.equal(found.items, wanted.items[:, :width])
            assert torch.equal(found.targets, wanted.targets[:, :width])
            assert torch.equal(found.users, wanted.users)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.whole, wanted.whole, strict=True))
