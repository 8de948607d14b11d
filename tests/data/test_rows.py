from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from genrec.data.row_splits import IN_TEST, IN_TRAIN, IN_VAL, LEFT_OUT
from genrec.data.rows import BlockPlan, Lists, Rows, RowsView
from genrec.features import FeatureSpec, TaskSpec

COUNT = 50
FEATURES = FeatureSpec(dense=("number",), tasks=(TaskSpec(name="y"),))


def rows_of_numbers(count: int = COUNT, *, mapped: bool = False) -> Rows:
    """Row i is i in every field; its list holds i % 3 times i."""
    numbers = np.arange(count)
    lengths = numbers % 3
    lists = Lists(np.repeat(numbers, lengths).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    return Rows(
        dense=numbers[:, None].astype(np.float32),
        sparse=np.stack([numbers, numbers + 1], axis=1).astype(np.int32),
        sequences=(lists,),
        labels=numbers[:, None].astype(np.float32),
        groups=numbers * 10**12,
        mapped=mapped,
    )


def view(*, mapped: bool = False) -> RowsView:
    parts = np.tile([IN_TRAIN, IN_TRAIN, IN_VAL, IN_TEST, LEFT_OUT], COUNT // 5).astype(np.uint8)
    return RowsView(rows_of_numbers(mapped=mapped), FEATURES, parts)


def order(plan) -> list[int]:
    return [int(row) for index in range(len(plan)) for row in plan[index].dense[:, 0]]


def test_a_batch_holds_the_rows_asked_for():
    batch = rows_of_numbers().take(np.array([5, 0, 1]))
    assert batch.dense.tolist() == [[5.0], [0.0], [1.0]] and batch.dense.dtype == torch.float32
    assert batch.sparse.tolist() == [[5, 6], [0, 1], [1, 2]] and batch.sparse.dtype == torch.int32
    assert batch.sequences[0].tolist() == [[5, 5], [-1, -1], [1, -1]]
    assert batch.labels.tolist() == [[5.0], [0.0], [1.0]]
    assert batch.groups is not None and batch.groups.tolist() == [5 * 10**12, 0, 10**12]


def test_a_batch_of_empty_lists_is_one_wide():
    assert rows_of_numbers().take(np.array([0, 3])).sequences[0].tolist() == [[-1], [-1]]
    assert rows_of_numbers().take(np.array([], dtype=np.int64)).sequences[0].shape == (0, 1)


def test_parts_are_read_in_stored_order():
    found = view()
    assert [found.num_rows(part) for part in ("train", "val", "test", "all")] == [20, 10, 10, 50]
    assert order(found.eval_batches("val", batch_size=3)) == list(range(2, COUNT, 5))
    assert order(found.eval_batches("all", batch_size=7)) == list(range(COUNT))
    assert [len(batch) for batch in found.eval_batches("test", batch_size=4)] == [4, 4, 2]
    with pytest.raises(ValueError, match="part"):
        found.eval_batches("dev", batch_size=2)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_plan_is_a_function_of_seed_and_epoch(mapped):
    found = view(mapped=mapped)

    def train(seed, epoch):
        return order(found.train_plan(None, batch_size=6, seed=seed, epoch=epoch))

    assert train(1, 2) == train(1, 2) != train(1, 3)
    assert train(1, 2) != train(2, 2)
    assert sorted(train(1, 2)) == found.rows_of("train").tolist()
    plan = found.train_plan(None, batch_size=6, seed=1, epoch=2)
    assert [len(plan[index]) for index in range(len(plan))] == [6, 6, 6, 2]
    with pytest.raises(IndexError):
        plan[4]


@pytest.mark.parametrize(("count", "block", "group", "batch_size"), [(97, 10, 3, 7), (97, 10, 3, 64), (8, 20, 2, 3)])
def test_blocks_give_every_row_once_whatever_batch_is_asked_first(count, block, group, batch_size):
    rows, chosen = rows_of_numbers(count), np.arange(0, count, 2)
    plan = BlockPlan(rows, chosen, batch_size, seed=1, epoch=1, block=block, group=group)
    whole = order(plan)
    assert sorted(whole) == chosen.tolist() and whole != chosen.tolist()
    backwards = [plan[index].dense[:, 0].tolist() for index in reversed(range(len(plan)))]
    assert list(itertools.chain(*reversed(backwards))) == whole


def test_a_batch_reads_few_blocks():
    plan = BlockPlan(rows_of_numbers(10_000), np.arange(10_000), 100, seed=1, epoch=1, block=50, group=4)
    for index in range(0, len(plan), 7):
        blocks = {int(row) // 50 for row in plan[index].dense[:, 0]}
        assert len(blocks) <= 4
        assert len(blocks) > 1  # and rows of several are mixed


def test_training_rows_are_one_batch_and_fingerprints_see_everything():
    found = view()
    assert found.training_rows().dense[:, 0].tolist() == found.rows_of("train").tolist()
    other = RowsView(rows_of_numbers(), FEATURES, np.zeros(COUNT, dtype=np.uint8))
    assert found.fingerprint == view().fingerprint != other.fingerprint
    changed = rows_of_numbers()
    changed.labels[3] = 7
    assert RowsView(changed, FEATURES, found.parts).fingerprint != found.fingerprint
