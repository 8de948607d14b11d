"""Splits, rows of different length and training batches beside their definitions written out in plain Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.contracts import IGNORE, GenrecError
from genrec.data.interactions import InteractionLog
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencePlan, position_rows, window_rows
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser, SplitResult
from tests.properties.effort import effort

lengths_of = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def log_of(moments: list[list[int]]) -> InteractionLog:
    """A log whose items are numbered through, so that each interaction is told from all others."""
    ordered = [sorted(user) for user in moments]
    users = np.repeat(np.arange(len(ordered)), [len(user) for user in ordered])
    return InteractionLog(
        users=users,
        items=np.arange(len(users)),
        user_ids=np.arange(len(ordered)),
        item_ids=np.arange(max(len(users), 1)),
        timestamps=np.array([time for user in ordered for time in user], dtype=np.int64),
    )


def parts_of(result: SplitResult) -> list[list[list[int]]]:
    """Train, validation and test items of each user."""
    return [[row.tolist() for row in part] for part in (result.train, result.val, result.test)]


def split_or_none(split: LeaveOneOut | RatioPerUser | GlobalTime, log: InteractionLog) -> SplitResult | None:
    try:
        return split.split(log)
    except GenrecError as error:
        assert str(error)
        return None


moments_of = st.lists(st.lists(st.integers(0, 30), max_size=9), min_size=1, max_size=6)
ratios = st.integers(1, 8).flatmap(lambda train: st.tuples(st.just(train), st.integers(0, 10 - train)))


@effort(150)
@given(moments=moments_of)
def test_leave_one_out(moments: list[list[int]]) -> None:
    log = log_of(moments)
    result = split_or_none(LeaveOneOut(), log)
    if result is None:
        assert all(len(user) < 3 for user in moments)
        return
    wanted: list[list[list[int]]] = [[], [], []]
    for user in range(len(moments)):
        items = np.flatnonzero(log.users == user).tolist()
        cut = [items[:-2], items[-2:-1], items[-1:]] if len(items) >= 3 else [items, [], []]
        for part, found in zip(wanted, cut, strict=True):
            part.append(found)
    assert parts_of(result) == wanted


@effort(150)
@given(moments=moments_of, shares=ratios, order=st.sampled_from(["time", "random"]), seed=st.integers(0, 9))
def test_ratios(moments: list[list[int]], shares: tuple[int, int], order: str, seed: int) -> None:
    train, val = shares[0] / 10, shares[1] / 10
    split = RatioPerUser(train_ratio=train, val_ratio=val, test_ratio=1 - train - val, order=order, seed=seed)
    log = log_of(moments)
    result = split_or_none(split, log)
    if result is None:
        return
    for user, (kept, *held) in enumerate(zip(*parts_of(result), strict=True)):
        items = np.flatnonzero(log.users == user).tolist()
        assert sorted(kept + held[0] + held[1]) == items
        count = len(items)
        tested = min(math.floor(count * split.test_ratio + 0.5), count - 1) if count >= 3 else 0
        validated = min(math.floor(count * val + 0.5), count - 1 - tested) if count >= 3 else 0
        assert [len(held[0]), len(held[1])] == [validated, tested]
        assert [kept, *held] == [sorted(part) for part in (kept, *held)]
        if order == "time":
            assert kept + held[0] + held[1] == items


@effort(150)
@given(moments=moments_of, shares=st.sampled_from([(1, 2), (3, 7), (5, 6), (8, 9), (1, 9)]))
def test_global_time(moments: list[list[int]], shares: tuple[int, int]) -> None:
    log = log_of(moments)
    if not len(log):
        return
    split = GlobalTime(val_from=shares[0] / 10, test_from=shares[1] / 10)
    result = split_or_none(split, log)
    if result is None:
        return
    assert log.timestamps is not None
    ordered = sorted(log.timestamps.tolist())
    val_from, test_from = (ordered[math.ceil(round(share * (len(ordered) - 1) / 10, 9))] for share in shares)
    for user in range(len(moments)):
        items = np.flatnonzero(log.users == user)
        when = log.timestamps[items]
        wanted = [when < val_from, (when >= val_from) & (when < test_from), when >= test_from]
        assert [part[user] for part in parts_of(result)] == [items[mask].tolist() for mask in wanted]


@effort(150)
@given(lists=st.lists(st.lists(st.integers(0, 99), max_size=7), max_size=8), data=st.data())
def test_rows_equal_lists(lists: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.from_rows(lists)
    places = st.lists(st.integers(0, 9), min_size=len(lists), max_size=len(lists))
    begin, end = np.array(data.draw(places), np.int64), np.array(data.draw(places), np.int64)
    between = [row[low:high] if low < high else [] for row, low, high in zip(lists, begin, end, strict=True)]
    assert [row.tolist() for row in ragged.between(begin, end)] == between
    width = data.draw(st.integers(max(map(len, lists), default=0), 9))
    assert ragged.padded(-1, width).tolist() == [row + [-1] * (width - len(row)) for row in lists]
    assert ragged.row_of_value.tolist() == [place for place, row in enumerate(lists) for _ in row]


@pytest.mark.parametrize("cut", [window_rows, position_rows])
@effort(150)
@given(lengths=lengths_of, max_history=st.integers(1, 12), batch_size=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_target_is_scored_once(cut, lengths: list[int], max_history: int, batch_size: int, seed: int) -> None:
    """Values are numbered through, so that a target says where it stands and what must stand before it."""
    sequences = Ragged.from_lengths(np.arange(sum(lengths)), np.array(lengths, dtype=np.int64))
    rows = cut(sequences, max_history)
    plan = SequencePlan(sequences, rows, batch_size=batch_size, seed=seed, epoch=1)
    scored: Counter[int] = Counter()
    for batch in (plan[index] for index in range(len(plan))):
        assert batch.items.shape == batch.targets.shape and batch.items.shape[1] <= max_history
        held = 0
        for user, items, length, targets in zip(batch.users, batch.items, batch.lengths, batch.targets, strict=True):
            assert sequences[int(user)].tolist().count(int(items[0])) == 1
            for place, target in enumerate(targets.tolist()):
                if target == IGNORE:
                    continue
                assert place < int(length) and int(items[place]) == target - 1
                start = int(sequences.offsets[int(user)])
                assert place + 1 >= min(max(max_history // 2, 1), target - start)  # what it sees of its past
                scored[target] += 1
                held += 1
        most = int((batch.targets != IGNORE).sum(dim=1).max())  # a row is never cut, so a batch may end within one
        assert held < batch_size + most
    firsts = set(sequences.offsets[:-1].tolist())
    assert scored == Counter(value for value in range(sum(lengths)) if value not in firsts)
