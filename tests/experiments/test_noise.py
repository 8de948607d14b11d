from __future__ import annotations

import math

import pytest

from experiments import noise
from experiments.noise import MOVED, SAME, UNKNOWN, Noise, Verdict
from experiments.results import ITEMS, Group, groups_of

METRIC = "recall@10"


def group(model: str, *values: float, seeds: tuple[int | str, ...] = ()) -> Group:
    places = seeds or tuple(range(1, len(values) + 1))
    rows = [
        {"data": "shop", "model": model, "filter_seen": "True", "seed": seed, METRIC: f"{value:.4f}"}
        for seed, value in zip(places, values, strict=True)
    ]
    return next(iter(groups_of(rows, ITEMS).values()))


def judge(committed: Group, new: Group, beside: list[Group]) -> Verdict:
    verdict = noise.judge(committed, new, beside, METRIC)
    assert verdict is not None
    return verdict


def noise_of(committed: Group, beside: list[Group]) -> Noise:
    found = noise.noise_of(committed, beside, METRIC)
    assert found is not None
    return found


def test_bound_is_that_of_students_t_by_hand():
    # t(.975, 2) = 4.302653, three committed seeds with s = .01 against one: 4.302653 * .01 * sqrt(1/3 + 1)
    assert Noise(0.01, 2, "a").bound(3, 1) == pytest.approx(0.0496828 + 0.0001, abs=1e-7)
    # t(.975, 4) = 2.776445, five against five
    assert Noise(0.01, 4, "a").bound(5, 5) == pytest.approx(2.776445 * 0.01 * math.sqrt(0.4) + 0.0001, abs=1e-7)


def test_a_difference_moves_just_beyond_the_bound():
    committed = group("a", 0.20, 0.21, 0.22)  # mean .21, s = .01, so one seed may differ by .0498
    assert judge(committed, group("a", 0.2597), [committed]).verdict == SAME
    assert judge(committed, group("a", 0.2599), [committed]).verdict == MOVED
    assert judge(committed, group("a", 0.1603), [committed]).verdict == SAME
    assert judge(committed, group("a", 0.1601), [committed]).verdict == MOVED


def test_more_new_seeds_leave_less_room():
    committed = group("a", 0.20, 0.21, 0.22)
    one = judge(committed, group("a", 0.25), [committed])
    three = judge(committed, group("a", 0.25, 0.25, 0.25), [committed])
    assert one.verdict == SAME and three.verdict == MOVED
    assert three.bound == pytest.approx(4.302653 * 0.01 * math.sqrt(2 / 3) + 0.0001, abs=1e-7)


def test_a_single_committed_seed_borrows_the_largest_spread_beside_it():
    single = group("single", 0.3)
    calm, wild = group("calm", 0.100, 0.101), group("wild", 0.2, 0.22, 0.24)
    found = noise_of(single, [single, calm, wild])
    assert (found.model, found.freedom) == ("wild", 2) and found.spread == pytest.approx(0.02)
    assert judge(single, group("single", 0.41), [single, calm, wild]).verdict == SAME  # 4.3 * .02 * sqrt(2)
    assert judge(single, group("single", 0.43), [single, calm, wild]).verdict == MOVED


def test_own_seeds_come_before_those_of_others():
    own, wild = group("own", 0.1, 0.102), group("wild", 0.2, 0.4)
    assert noise_of(own, [own, wild]).model == "own"


def test_without_any_spread_nothing_can_be_said():
    single = group("single", 0.3)
    verdict = judge(single, group("single", 0.9), [single, group("other", 0.1)])
    assert verdict.verdict == UNKNOWN and verdict.bound is None


def test_a_baseline_has_rounding_alone():
    committed = group("item_knn", 0.3, seeds=("",))
    assert judge(committed, group("item_knn", 0.3001, seeds=("",)), [committed]).verdict == SAME
    assert judge(committed, group("item_knn", 0.3002, seeds=("",)), [committed]).verdict == MOVED


def test_seeds_that_give_the_same_digits_are_counted():
    committed = group("a", 0.20, 0.21, 0.22)
    verdict = judge(committed, group("a", 0.20, 0.2101, 0.9, seeds=(1, 2, 9)), [committed])
    assert (verdict.alike, verdict.shared) == (1, 2)
    assert verdict.difference == pytest.approx((0.20 + 0.2101 + 0.9) / 3 - 0.21)


def test_a_metric_that_one_side_lacks_is_not_judged():
    committed = group("a", 0.2, 0.3)
    assert noise.judge(committed, group("a", 0.2), [committed], "coverage@10") is None
