"""What a plan cuts for one of several processes is what that one would take of the whole batch."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import toy_model, toy_view

from genrec.contracts import SharedPlan
from genrec.data.rows import BlockPlan, Lists, RowBatches, Rows
from genrec.data.sequences import POSITIONS, USERS, WINDOWS, PlansInTurn
from genrec.data.views import ItemsView
from genrec.trainers.learner import EpochLoader, Share, share_of
from genrec.trainers.world import World


def sequences(mode: str, batch_size: int = 40) -> Any:
    model = toy_model()
    model.training_mode = mode
    return toy_view().train_plan(model, batch_size=batch_size, seed=1, epoch=2)


def rows(count: int = 57) -> Rows:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, size=count))])
    labels = rng.integers(0, 2, size=(count, 2)).astype(np.float32)
    labels[rng.random((count, 2)) < 0.3] = np.nan
    return Rows(
        dense=rng.normal(size=(count, 2)).astype(np.float32),
        sparse=rng.integers(0, 9, size=(count, 3)).astype(np.int32),
        sequences=(Lists(rng.integers(0, 9, size=offsets[-1]).astype(np.int32), offsets),),
        labels=labels,
        groups=rng.integers(0, 4, size=count),
    )


PLANS = {
    "windows": lambda: sequences(WINDOWS),
    "positions": lambda: sequences(POSITIONS),
    "users": lambda: sequences(USERS),
    "one row in a batch": lambda: sequences(POSITIONS, batch_size=1),
    "in turn": lambda: PlansInTurn([sequences(WINDOWS), sequences(POSITIONS)]),
    "rows": lambda: RowBatches(rows(), np.random.default_rng(1).permutation(57), 20),
    "blocks": lambda: BlockPlan(rows(), np.arange(57), 20, seed=1, epoch=2, block=8, group=3),
    "items": lambda: ItemsView(np.random.default_rng(0).normal(size=(50, 4))).train_plan(
        None, batch_size=16, seed=1, epoch=2
    ),
}


def assert_same(one: Any, other: Any) -> None:
    for item in fields(one):
        left, right = getattr(one, item.name), getattr(other, item.name)
        assert (left is None) == (right is None), item.name
        if left is None:
            continue
        pairs = zip(left, right, strict=True) if isinstance(left, tuple) else [(left, right)]
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("size", [2, 3])
def test_a_share_is_what_would_be_taken_of_the_batch(name: str, size: int) -> None:
    plan = PLANS[name]()
    assert isinstance(plan, SharedPlan) and len(plan) > 1
    for index in range(len(plan)):
        for rank in range(size):
            wanted, found = share_of(plan[index], rank, size), plan.share(index, rank, size)
            assert (found is not None) == wanted.counts
            if found is not None:
                assert_same(found, wanted.batch)


class Unread(np.ndarray):
    """Notes how many of its values were asked for."""

    asked = 0

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, np.ndarray):
            Unread.asked += key.size
        return np.asarray(super().__getitem__(key))


def test_a_process_reads_the_items_of_its_rows_alone() -> None:
    plan = sequences(WINDOWS)
    plan.sequences = type(plan.sequences)(plan.sequences.values.view(Unread), plan.sequences.offsets)
    asked = {}
    for kind, cut in (("whole", lambda index: plan[index]), ("share", lambda index: plan.share(index, 0, 4))):
        Unread.asked = 0
        for index in range(len(plan)):
            cut(index)
        asked[kind] = Unread.asked
    assert asked["share"] < 0.5 * asked["whole"]


def test_a_loader_asks_for_shares_and_does_without() -> None:
    world = World(rank=1, size=2)
    plan = sequences(POSITIONS)
    asked: list[int] = []

    class Whole:
        def __len__(self) -> int:
            return len(plan)

        def __getitem__(self, index: int) -> Any:
            asked.append(index)
            return plan[index]

    shared, taken = list(EpochLoader(plan, world=world)), list(EpochLoader(Whole(), world=world))
    assert asked == list(range(len(plan)))
    for one, other in zip(shared, taken, strict=True):
        assert isinstance(one, Share) and one.counts == other.counts
        assert_same(one.batch, other.batch)
