from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import GenrecError
from genrec.data.interactions import InteractionLog
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser


def make_log(lengths, times=None):
    """Every interaction has its own item, so that rows can be told apart."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    total = len(users)
    return InteractionLog(
        users=users,
        items=np.arange(total),
        user_ids=np.arange(len(lengths)),
        item_ids=np.arange(total),
        timestamps=None if times is None else np.asarray(times),
    )


def rows(ragged):
    return [row.tolist() for row in ragged]


def test_leave_one_out():
    result = LeaveOneOut().split(make_log([5, 2, 3, 1, 0]))
    assert rows(result.train) == [[0, 1, 2], [5, 6], [7], [10], []]
    assert rows(result.val) == [[3], [], [8], [], []]
    assert rows(result.test) == [[4], [], [9], [], []]
    assert result.train_only_users == 3
    assert "3 users" in result.describe()[-1]
    assert result.contiguous


def test_ratio_per_user_by_time():
    result = RatioPerUser().split(make_log([20, 5, 4, 3, 2]))
    assert [len(row) for row in result.train] == [14, 3, 2, 3, 2]
    assert [len(row) for row in result.val] == [3, 1, 1, 0, 0]
    assert [len(row) for row in result.test] == [3, 1, 1, 0, 0]
    assert rows(result.test)[0] == [17, 18, 19]
    assert result.contiguous


def test_ratio_per_user_keeps_a_training_item():
    result = RatioPerUser(train_ratio=0.1, val_ratio=0.45, test_ratio=0.45).split(make_log([3, 4]))
    assert min(result.train.lengths) == 1


def test_ratio_per_user_at_random_is_fixed_by_its_seed():
    log = make_log([40] * 30)
    first, again, other = (RatioPerUser(order="random", seed=seed).split(log) for seed in (1, 1, 2))
    assert rows(first.test) == rows(again.test) != rows(other.test)
    assert not first.contiguous
    position = np.concatenate(rows(first.test)) % 40
    assert abs(position.mean() - 19.5) < 3  # not the latest ones
    assert all(row == sorted(row) for row in rows(first.train))


@pytest.mark.parametrize("ratios", [(0.7, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_ratios_must_add_up(ratios):
    with pytest.raises(GenrecError, match="add up to 1"):
        RatioPerUser(train_ratio=ratios[0], val_ratio=ratios[1], test_ratio=ratios[2])


def test_a_ratio_of_zero_is_allowed():
    result = RatioPerUser(train_ratio=0.8, val_ratio=0.0, test_ratio=0.2).split(make_log([10]))
    assert [len(part.values) for part in (result.train, result.val, result.test)] == [8, 0, 2]


def test_global_time_by_shares_does_not_leak():
    times = np.sort(np.random.default_rng(0).integers(0, 50, size=(20, 10)), axis=1).ravel()
    result = GlobalTime(val_from=0.8, test_from=0.9).split(make_log([10] * 20, times))
    ranges = result.time_ranges
    assert ranges["train"][1] < ranges["val"][0] <= ranges["val"][1] < ranges["test"][0]
    assert 150 <= len(result.train.values) <= 170
    assert result.contiguous


def test_global_time_by_timestamps():
    result = GlobalTime(val_from=10, test_from=20).split(make_log([3, 2], [9, 10, 20, 19, 25]))
    assert rows(result.train) == [[0], []]
    assert rows(result.val) == [[1], [3]]
    assert rows(result.test) == [[2], [4]]
    assert result.time_ranges == {"train": (9, 9), "val": (10, 19), "test": (20, 25)}


def test_global_time_needs_timestamps_and_sense():
    with pytest.raises(GenrecError, match="needs timestamps"):
        GlobalTime().split(make_log([5]))
    with pytest.raises(GenrecError, match="one kind"):
        GlobalTime(val_from=0.5, test_from=2000)
    with pytest.raises(GenrecError, match="val_from < test_from"):
        GlobalTime(val_from=0.9, test_from=0.8)
    with pytest.raises(GenrecError, match=r"no val interactions.*time is 1 to 3"):
        GlobalTime(val_from=100, test_from=200).split(make_log([3], [1, 2, 3]))


def test_too_little_data_is_an_error():
    with pytest.raises(GenrecError, match="at least three"):
        LeaveOneOut().split(make_log([2, 2]))


def test_cold_items_are_described():
    assert "3 items never trained on" in LeaveOneOut().split(make_log([5, 4, 4])).describe()[1]


SPLITS = [LeaveOneOut(), RatioPerUser(), RatioPerUser(order="random"), GlobalTime()]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: f"{type(split).__name__}-{getattr(split, 'order', '')}")
@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_test_rows_are_never_in_train(split, lengths):
    """SPEC E, "test rows also in train": the parts are a partition of the log, user by user."""
    lengths = [*lengths, 30]
    log = make_log(lengths, np.concatenate([np.arange(length) for length in lengths]))
    result = split.split(log)
    for user, length in enumerate(lengths):
        parts = [*result.train[user], *result.val[user], *result.test[user]]
        assert sorted(parts) == log.items[log.users == user].tolist()
        assert len(parts) == length


def test_users_without_a_history_are_counted_and_all_of_them_are_an_error():
    split = GlobalTime(val_from=10, test_from=20).split(make_log([2, 2, 1], np.array([1, 11, 2, 21, 22])))
    assert split.users_without_history == {"val": 0, "test": 1}  # user 3 came after everything
    assert any(line.startswith("test: 1 users have nothing before it") for line in split.describe())
    with pytest.raises(GenrecError, match="None of the 1 users with test interactions has any before"):
        GlobalTime(val_from=10, test_from=20).split(make_log([2, 2, 1], np.array([1, 11, 2, 12, 22])))
