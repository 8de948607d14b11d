from __future__ import annotations

import torch
from torch import nn

from genrec.contracts import DataSpec
from genrec.models.mmoe import MMoE
from genrec.models.shared_bottom import SharedBottom
from tests.models.row_contract import RowContract, row_batch, row_spec
from tests.nn.test_experts import expert_of, gate_of, tower_of

TASKS = ("click", "like", "rating")


class TestMMoE(RowContract):
    TASKS = TASKS
    EPOCHS = 16
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return MMoE(spec, embedding_dim=4, num_experts=3, expert_dims=[8], tower_dims=[4])


def small(num_experts: int = 3) -> MMoE:
    torch.manual_seed(0)
    return MMoE(row_spec(TASKS), embedding_dim=4, num_experts=num_experts, expert_dims=[7, 6], tower_dims=[5])


def test_equals_experts_gates_and_towers_in_loops() -> None:
    model, batch = small(), row_batch(16, tasks=TASKS)
    fields = model.fields(batch)
    inputs = model.inputs(fields, batch)
    found = model.logits(fields, batch)
    for task in range(len(TASKS)):
        weights = gate_of(model.gates, task, inputs)
        mixture = torch.zeros(16, 6)
        for e in range(3):
            mixture += weights[:, e : e + 1] * expert_of(model.experts, e, inputs)
        torch.testing.assert_close(found[:, task], tower_of(model.towers, task, mixture))


def test_gates_depend_on_the_row_and_sum_to_one() -> None:
    model, batch = small(), row_batch(16, tasks=TASKS)
    weights = model.gates(model.inputs(model.fields(batch), batch)[:, None])
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(16, len(TASKS)))
    assert (weights.std(dim=0) > 1e-3).all()


def test_with_one_expert_it_is_a_shared_bottom() -> None:
    model, batch = small(num_experts=1), row_batch(16, tasks=TASKS)
    other = SharedBottom(row_spec(TASKS), embedding_dim=4, bottom_dims=[7, 6], tower_dims=[5])
    state = {name.replace("experts.", "bottom."): value for name, value in model.state_dict().items()}
    state.pop("gates.linear.weight")
    other.load_state_dict(state)
    for name, values in model.predict(batch).items():
        torch.testing.assert_close(values, other.predict(batch)[name])


def test_gates_and_towers_are_private_and_experts_shared() -> None:
    model = small()
    private = {id(weight) for weight in model.private_parameters()}
    names = {name.split(".")[0] for name, weight in model.named_parameters() if id(weight) in private}
    assert names == {"bias", "gates", "towers"}
    [last] = model.last_shared()
    assert last.shape == (3, 6, 7)  # of each expert the layer from 7 to 6


def test_a_gate_learns_from_its_own_task_only() -> None:
    model = small()
    losses, _ = model.task_losses(row_batch(16, tasks=TASKS))
    losses["like"].backward()
    gradient = model.gates.linear.weight.grad
    assert gradient is not None
    assert [bool(part.any()) for part in gradient[0].chunk(3)] == [False, True, False]


def test_experts_specialise_where_tasks_conflict() -> None:
    """Two tasks with opposite labels: gates that start alike come to weigh the experts differently."""
    torch.manual_seed(0)
    spec = row_spec(("click", "like"))
    model = MMoE(spec, embedding_dim=4, num_experts=4, expert_dims=[8], tower_dims=[])
    batch = row_batch(512, tasks=("click", "like"))
    batch.labels[:, 1] = 1 - batch.labels[:, 0]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch).total.backward()
        optimizer.step()
    found = model.predict(batch)
    assert torch.corrcoef(torch.stack([found["click"], found["like"]]))[0, 1] < -0.95
    weights = model.gates(model.inputs(model.fields(batch), batch)[:, None])
    assert (weights[:, 0] - weights[:, 1]).abs().mean() > 0.05
