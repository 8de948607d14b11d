from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import DataSpec
from genrec.models.ple import PLE
from tests.models.row_contract import RowContract, row_batch, row_spec
from tests.nn.test_experts import expert_of, gate_of, tower_of

TASKS = ("click", "like", "rating")
OWN, SHARED = 2, 3


class TestPLE(RowContract):
    TASKS = TASKS
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return PLE(spec, embedding_dim=4, expert_dims=[8], tower_dims=[4])


class TestCGC(RowContract):
    TASKS = ("click", "like")
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return PLE(spec, embedding_dim=4, num_levels=1, expert_dims=[8], tower_dims=[4])


def small(num_levels: int) -> PLE:
    torch.manual_seed(0)
    return PLE(
        row_spec(TASKS),
        embedding_dim=4,
        num_levels=num_levels,
        num_experts=OWN,
        num_shared_experts=SHARED,
        expert_dims=[7, 6],
        tower_dims=[5],
    )


def naive(model: PLE, inputs: Tensor) -> Tensor:
    """Equations of sections 4.1 and 4.2 in loops."""
    tasks = range(len(TASKS))
    of_tasks, of_all = [inputs for _ in tasks], inputs
    for depth, level in enumerate(model._levels()):
        own = [[expert_of(level.experts, OWN * t + e, of_tasks[t]) for e in range(OWN)] for t in tasks]
        shared = [expert_of(level.shared_experts, e, of_all) for e in range(SHARED)]
        following = []
        for t in tasks:
            weights, chosen = gate_of(level.gates, t, of_tasks[t]), [*own[t], *shared]
            assert weights.shape[1] == OWN + SHARED
            following.append(sum(weights[:, e : e + 1] * x for e, x in enumerate(chosen)))
        if depth < len(model.levels) - 1:
            everything = [x for of_task in own for x in of_task] + shared
            weights = gate_of(level.shared_gate, 0, of_all)
            assert weights.shape[1] == OWN * len(TASKS) + SHARED
            of_all = torch.stack([weights[:, e : e + 1] * x for e, x in enumerate(everything)]).sum(dim=0)
        of_tasks = following
    return torch.stack([tower_of(model.towers, t, of_tasks[t]) for t in tasks], dim=1)


@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_equals_the_papers_equations_in_loops(num_levels: int) -> None:
    model, batch = small(num_levels), row_batch(16, tasks=TASKS)
    fields = model.fields(batch)
    torch.testing.assert_close(model.logits(fields, batch), naive(model, model.inputs(fields, batch)))


def changed_by(model: PLE, level: int, expert: slice, *, shared: bool = False) -> list[bool]:
    """Which tasks' outputs change with the weights of some experts of a level."""
    batch = row_batch(32, tasks=TASKS)
    before = model.logits(model.fields(batch), batch)
    experts = model._levels()[level].shared_experts if shared else model._levels()[level].experts
    with torch.no_grad():
        experts.last_weight[expert] += 1.0
    after = model.logits(model.fields(batch), batch)
    return [not torch.equal(a, b) for a, b in zip(before.T, after.T, strict=True)]


def test_in_a_single_level_an_expert_of_a_task_reaches_no_other() -> None:
    for task in range(len(TASKS)):
        expected = [t == task for t in range(len(TASKS))]
        assert changed_by(small(1), 0, slice(OWN * task, OWN * (task + 1))) == expected


def test_below_the_last_level_it_reaches_all_by_the_shared_gate() -> None:
    assert changed_by(small(2), 0, slice(OWN, OWN + 1)) == [True, True, True]
    assert changed_by(small(2), 1, slice(OWN, OWN + 1)) == [False, True, False]


def test_without_the_shared_gate_it_would_reach_no_other() -> None:
    """Shared experts of the second level at 0 cut the way through the shared gate, and only that way."""
    model = small(2)
    with torch.no_grad():
        model._levels()[1].shared_experts.last_weight.zero_()
    assert changed_by(model, 0, slice(OWN, OWN + 1)) == [False, True, False]


@pytest.mark.parametrize("level", [0, 1])
def test_a_shared_expert_reaches_all_tasks(level: int) -> None:
    assert changed_by(small(2), level, slice(0, 1), shared=True) == [True, True, True]


def test_every_level_but_the_last_has_a_shared_gate() -> None:
    assert [level.shared_gate is None for level in small(3)._levels()] == [False, False, True]


def test_what_is_private_and_what_is_shared() -> None:
    model = small(2)
    private = {id(weight) for weight in model.private_parameters()}
    names = {name.partition(".layers.")[0] for name, weight in model.named_parameters() if id(weight) not in private}
    assert names == {
        "fields.weight",
        "levels.0.shared_experts",
        "levels.0.shared_gate.linear.weight",
        "levels.1.shared_experts",
    }
    [last] = model.last_shared()
    assert last is model._levels()[1].shared_experts.last_weight
    assert last.shape == (SHARED, 6, 7)
