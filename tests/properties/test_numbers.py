"""Metrics beside plain Python, and what holds of every schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from itertools import pairwise
from typing import Any, get_type_hints

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from genrec import schedulers
from genrec.annotations import accepts, checkable
from genrec.contracts import IGNORE, GenrecError
from genrec.metrics.ranking import RankingAccumulator, ranking_metrics
from tests.properties.effort import effort

places = st.integers(-1, 6)  # few items, so that they repeat; -1 is IGNORE
users = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        *(
            st.lists(st.lists(places, min_size=width, max_size=width), min_size=count, max_size=count)
            for width in (6, 3)
        )
    )
)


def _discounted(ranks: Iterable[int]) -> float:
    return sum(1 / math.log2(rank + 1) for rank in ranks)


def reference(recommended: list[int], targets: list[int], k: int, denominator: str) -> dict[str, float]:
    """The metrics of one user by their definitions."""
    wanted = {item for item in targets if item != IGNORE}
    if not wanted:
        return dict.fromkeys(("recall", "ndcg", "hit", "mrr", "precision", "map"), math.nan)
    seen: set[int] = set()
    ranks = []
    for rank, item in enumerate(recommended[:k], start=1):
        if item in wanted and item not in seen:
            ranks.append(rank)
        seen.add(item)
    best = min(k, len(wanted))
    return {
        "recall": len(ranks) / (best if denominator == "min" else len(wanted)),
        "precision": len(ranks) / k,
        "hit": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks)
        / sum(1 / math.log2(rank + 1) for rank in range(1, best + 1)),
        "map": sum(place / rank for place, rank in enumerate(ranks, start=1)) / best,
    }


@effort(200)
@given(lists=users, k=st.integers(1, 9), denominator=st.sampled_from(["relevant", "min"]))
def test_ranking_metrics_are_their_definitions(lists: Any, k: int, denominator: str) -> None:
    recommended, targets = lists
    found = ranking_metrics(torch.tensor(recommended), torch.tensor(targets), [k], denominator=denominator)
    for row, (items, wanted) in enumerate(zip(recommended, targets, strict=True)):
        for name, value in reference(items, wanted, k, denominator).items():
            assert found[f"{name}@{k}"][row].item() == pytest.approx(value, nan_ok=True)


@effort(80)
@given(lists=users, k=st.integers(1, 9), data=st.data())
def test_sums_do_not_depend_on_the_batches(lists: Any, k: int, data: st.DataObject) -> None:
    recommended, targets = map(torch.tensor, lists)
    whole, pieces = RankingAccumulator([k]), RankingAccumulator([k])
    whole.update(recommended, targets)
    cut = data.draw(st.integers(0, len(recommended)))
    for part in (slice(0, cut), slice(cut, None)):
        pieces.update(recommended[part], targets[part])
    assert pieces.compute() == pytest.approx(whole.compute())


_CLASSES = [kind for kind in vars(schedulers).values() if isinstance(kind, type)]
_KINDS = [kind for kind in _CLASSES if issubclass(kind, schedulers.Schedule)]
_VALUES = [None, 0, 1, 2, 3, 7, 100, 0.0, 0.001, 0.3, 0.5, 0.999, 1.0, 2.5, [1, 2], [3, 50], "step", "epoch", True]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
@effort(80)
@given(data=st.data(), total=st.integers(1, 200))
def test_every_schedule_stays_within_bounds(kind: type[schedulers.Schedule], data: st.DataObject, total: int) -> None:
    hints = get_type_hints(kind, include_extras=True)
    given_ = {}
    for field in fields(kind):
        annotation = checkable(hints[field.name])
        fitting = [value for value in _VALUES if accepts(annotation, value)]
        if fitting and data.draw(st.booleans()):
            given_[field.name] = data.draw(st.sampled_from(fitting))
    try:
        schedule = kind(**given_)
    except GenrecError:
        assume(False)
        raise
    factors = [schedule.factor(step, total) for step in range(total + 3)]
    assert all(math.isfinite(factor) and 0 <= factor <= 1 + 1e-9 for factor in factors)
    warmup = schedule.num_warmup_steps(total)
    assert all(factor > 0 for factor in factors[:warmup])
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(factors[:warmup]))
    assert all(factor >= schedule.min_lr_ratio - 1e-9 for factor in factors[warmup:])
    assert factors == [schedule.factor(step, total) for step in range(total + 3)]
