from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import IGNORE, GenrecError
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView


@dataclass
class Model:
    max_history: int = 5
    training_mode: str = "windows"


def make_view(lengths, held_out=1):
    """Item numbers are unique, so every target can be recognised."""
    starts = np.cumsum([0, *lengths])
    rows = [list(range(starts[i], starts[i + 1])) for i in range(len(lengths))]
    empty = [[] for _ in lengths]
    if not held_out:
        return rows, SequencesView(Ragged.from_rows(rows), Ragged.from_rows(empty), Ragged.from_rows(empty), starts[-1])
    parts = ([row[:-2] for row in rows], [row[-2:-1] for row in rows], [row[-1:] for row in rows])
    return rows, SequencesView(*(Ragged.from_rows(part) for part in parts), num_items=int(starts[-1]))


def batches(view, model, **options):
    plan = view.train_plan(model, **{"batch_size": 16, "seed": 0, "epoch": 0, **options})
    return [plan[i] for i in range(len(plan))]


@pytest.mark.parametrize("mode", ["windows", "positions"])
@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    max_history=st.integers(1, 12),
    batch_size=st.integers(1, 30),
)
def test_every_target_is_scored_once_per_epoch(mode, lengths, max_history, batch_size):
    """SPEC E, "sliding windows together with all-position loss (early positions counted twice)"."""
    rows, view = make_view([*lengths, 2], held_out=0)
    seen = Counter()
    for batch in batches(view, Model(max_history, mode), batch_size=batch_size):
        assert len(set(batch.lengths.tolist())) == 1  # exact-length buckets: nothing is padded
        assert batch.items.shape == batch.targets.shape == (len(batch.users), int(batch.lengths[0]))
        assert batch.items.shape[1] <= max_history
        for user, items, targets in zip(
            batch.users.tolist(), batch.items.tolist(), batch.targets.tolist(), strict=True
        ):
            for position, target in enumerate(targets):
                if target == IGNORE:
                    continue
                seen[target] += 1
                place = rows[user].index(target)
                assert items[: position + 1] == rows[user][place - position - 1 : place]  # what came right before it
                needed = min(place, max_history if mode == "windows" else max(max_history // 2, 1))
                assert position + 1 >= needed
    assert seen == Counter(item for row in rows for item in row[1:])


def test_windows_truncate_the_history_of_each_sample():
    _, view = make_view([9], held_out=0)
    found = sorted((batch.items.tolist(), batch.targets.tolist()) for batch in batches(view, Model(3), batch_size=1))
    assert ([[0]], [[1]]) in found
    assert ([[5, 6, 7]], [[IGNORE, IGNORE, 8]]) in found
    assert ([[0, 1, 2]], [[IGNORE, IGNORE, 3]]) in found  # early targets of a long user are not lost


@pytest.mark.parametrize("mode", ["windows", "positions"])
def test_batches_are_a_function_of_seed_and_epoch(mode):
    _, view = make_view([12] * 30)

    def content(seed, epoch):
        return [batch.targets.tolist() for batch in batches(view, Model(5, mode), seed=seed, epoch=epoch)]

    assert content(1, 4) == content(1, 4)
    assert content(1, 4) != content(1, 5)
    assert content(1, 4) != content(2, 4)
    plan = view.train_plan(Model(5, mode), batch_size=16, seed=1, epoch=4)
    assert plan[len(plan) - 1].targets.tolist() == content(1, 4)[-1]  # any batch by its index alone


@pytest.mark.parametrize("mode", ["windows", "positions"])
def test_batch_size_counts_targets(mode):
    _, view = make_view([14] * 50, held_out=0)
    for batch in batches(view, Model(20, mode), batch_size=40):
        count = int((batch.targets != IGNORE).sum())
        assert 1 <= count <= 40 + 13


@pytest.mark.parametrize("part", ["val", "test"])
def test_users_longer_than_max_history_keep_their_val_and_test_rows(part):
    """SPEC E, "users longer than max_len lose their validation and test rows"."""
    rows, view = make_view([40, 6, 3])
    found = {}
    for batch, targets in view.eval_batches(part, batch_size=2, max_history=5):
        for row, user in enumerate(batch.users.tolist()):
            found[user] = (batch.items[row, : batch.lengths[row]].tolist(), targets[row].tolist())
    end = -2 if part == "val" else -1
    assert found == {user: (row[:end][-5:], [row[end]]) for user, row in enumerate(rows)}


def test_seen_holds_the_whole_history_and_only_on_request():
    rows, view = make_view([12, 4])
    batch, _ = next(iter(view.eval_batches("test", batch_size=9, max_history=3, filter_seen=True)))
    assert batch.seen is not None
    seen = {user: set(row) - {IGNORE} for user, row in zip(batch.users.tolist(), batch.seen.tolist(), strict=True)}
    assert seen == {0: set(rows[0][:-1]), 1: set(rows[1][:-1])}
    assert next(iter(view.eval_batches("test", batch_size=9, max_history=3)))[0].seen is None


def test_max_users_is_a_fixed_sample():
    """SPEC E, "evaluation users re-sampled unseeded"."""
    _, view = make_view([5] * 60)

    def users(seed):
        found = view.eval_batches("val", batch_size=7, max_history=5, max_users=20, seed=seed)
        return torch.cat([batch.users for batch, _ in found]).tolist()

    assert users(3) == users(3)
    assert users(3) != users(4)
    assert len(set(users(3))) == 20


def test_users_without_a_target_or_a_history_are_skipped():
    view = SequencesView(
        Ragged.from_rows([[1], [2, 3], []]), Ragged.from_rows([[4], [], [5]]), Ragged.from_rows([[], [6], [7]]), 8
    )
    val = list(view.eval_batches("val", batch_size=5, max_history=5))
    assert [batch.users.tolist() for batch, _ in val] == [[0]]
    test = list(view.eval_batches("test", batch_size=5, max_history=5))
    assert sorted(user for batch, _ in test for user in batch.users.tolist()) == [1, 2]


def test_several_targets_are_padded_with_ignore():
    view = SequencesView(Ragged.from_rows([[1], [2]]), Ragged.from_rows([[3, 4], [5]]), Ragged.from_rows([[], []]), 6)
    _, targets = next(iter(view.eval_batches("val", batch_size=5, max_history=5)))
    assert targets.tolist() == [[3, 4], [5, IGNORE]]


def test_users_are_rows_that_are_input_and_target_at_once():
    rows, view = make_view([4, 7, 0, 1], held_out=0)
    found = {}
    for batch in batches(view, Model(3, "users")):
        assert torch.equal(batch.items, batch.targets)
        assert len(set(batch.lengths.tolist())) == 1
        found.update(zip(batch.users.tolist(), batch.items.tolist(), strict=True))
    assert found == {0: rows[0][-3:], 1: rows[1][-3:], 3: rows[3]}
    held_out = make_view([5, 4])[1]
    assert {item for batch in batches(held_out, Model(9, "users")) for item in batch.items.flatten().tolist()} == set(
        held_out.train.values.tolist()
    )


def test_history_of_each_part():
    _, view = make_view([4, 3])
    for part, expected in {"val": [[0, 1], [4]], "test": [[0, 1, 2], [4, 5]], "all": [[0, 1, 2, 3], [4, 5, 6]]}.items():
        assert [row.tolist() for row in view.history(part)] == expected


def test_nothing_to_learn_from_is_an_error():
    _, view = make_view([3, 3])
    with pytest.raises(GenrecError, match="nothing to learn from"):
        view.train_plan(Model(), batch_size=4, seed=0, epoch=0)
    with pytest.raises(ValueError, match="training_mode"):
        view.train_plan(Model(training_mode="both"), batch_size=4, seed=0, epoch=0)


def test_fingerprint_sees_every_part():
    _, view = make_view([5, 4])
    moved = SequencesView(view.train, view.test, view.val, view.num_items)
    assert view.fingerprint == make_view([5, 4])[1].fingerprint
    assert view.fingerprint != moved.fingerprint
