from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import DataSpec
from genrec.models.aitm import AITM, Attention
from tests.models.row_contract import RowContract, row_batch, row_features, row_spec
from tests.nn.test_experts import expert_of, tower_of

TASKS = ("click", "buy", "rating")


class TestAITM(RowContract):
    TASKS = TASKS
    EPOCHS = 12
    LEARNS = 0.7

    def build(self, spec: DataSpec) -> nn.Module:
        return AITM(spec, embedding_dim=4, tower_dims=[16, 8])

    def test_shared_and_private_parameters_are_the_models(self, model: Any) -> None:
        """All tasks share the embeddings only, so there is no last shared layer; the attention serves all but one."""
        private = {id(weight) for weight in model.private_parameters()}
        shared = [name for name, weight in model.named_parameters() if id(weight) not in private]
        assert shared == ["fields.weight", "attention.projections.weight"]
        assert model.last_shared() == []


def small(tasks: tuple[str, ...] = TASKS, **settings: Any) -> AITM:
    torch.manual_seed(0)
    return AITM(row_spec(tasks), embedding_dim=4, tower_dims=[7, 6], **settings)


def attended(attention: Attention, heard: Tensor, own: Tensor) -> Tensor:
    """The attention of one row, written out: two (D,) -> (D,)."""
    first, second, third = attention.projections.weight[0].chunk(3)
    total, scale = torch.zeros(len(own)), torch.zeros(())
    for u in (heard, own):
        score = torch.exp((first @ u) @ (second @ u) / math.sqrt(len(u)))
        total, scale = total + score * (third @ u), scale + score
    return total / scale


def test_attention_by_hand() -> None:
    """With D = 1, h1 = h2 = 1 and h3 = 3, the scores of 0 and sqrt(log 2) are exp(0) = 1 and exp(log 2) = 2."""
    attention = Attention(1)
    with torch.no_grad():
        attention.projections.weight.copy_(torch.tensor([[[1.0], [1.0], [3.0]]]))
    u = math.sqrt(math.log(2.0))
    found = attention(torch.tensor([[[0.0], [u]]]))
    assert found.tolist() == [[[pytest.approx(2 / 3 * 3 * u)]]]


def test_equals_the_papers_chain_in_loops() -> None:
    model, batch = small(), row_batch(8, tasks=TASKS)
    assert model.attention is not None
    fields = model.fields(batch)
    inputs = model.inputs(fields, batch)
    found = model.logits(fields, batch)
    z = expert_of(model.towers, 0, inputs)
    for task in range(len(TASKS)):
        if task:
            own = expert_of(model.towers, task, inputs)
            heard = expert_of(model.transfers[task - 1], 0, z)
            z = torch.stack([attended(model.attention, p, q) for p, q in zip(heard, own, strict=True)])
        torch.testing.assert_close(found[:, task], tower_of(model.outputs, task, z))


def test_what_a_task_knows_travels_down_the_chain_only() -> None:
    batch = row_batch(16, tasks=TASKS)
    for task in range(len(TASKS)):
        model = small()
        before = model.logits(model.fields(batch), batch)
        with torch.no_grad():
            model.towers.last_weight[task] += 1.0
        after = model.logits(model.fields(batch), batch)
        changed = [not torch.equal(a, b) for a, b in zip(before.T, after.T, strict=True)]
        assert changed == [later >= task for later in range(len(TASKS))]


def test_the_third_task_hears_of_the_first_by_the_second() -> None:
    model, batch = small(), row_batch(16, tasks=TASKS)
    before = model.logits(model.fields(batch), batch)
    with torch.no_grad():
        for weight in model.transfers[1].parameters():
            weight.zero_()
    cut = model.logits(model.fields(batch), batch)
    assert not torch.equal(before[:, 2], cut[:, 2])
    with torch.no_grad():
        model.towers.last_weight[0] += 1.0
    after = model.logits(model.fields(batch), batch)
    assert not torch.equal(after[:, 1], cut[:, 1])
    assert torch.equal(after[:, 2], cut[:, 2])


def test_the_calibrator_by_hand() -> None:
    """Clicks of 1/2 and 1/2, purchases of 3/4 and 1/4: only the first is too likely, by 1/4, on average by 1/8."""
    outputs = torch.tensor([[0.0, math.log(3.0), 9.0], [0.0, -math.log(3.0), 9.0]], requires_grad=True)
    found = small(calibration_weight=0.6).calibration(outputs)
    assert found is not None
    assert found.item() == pytest.approx(0.6 / 8)
    found.backward()
    assert outputs.grad is not None
    click, buy = 0.6 / 2 * 1 / 4, 0.6 / 2 * 3 / 16  # p (1 - p) of 1/2 and of 3/4
    assert outputs.grad.tolist() == [pytest.approx([-click, buy, 0.0]), [0.0, 0.0, 0.0]]


def test_the_calibrator_is_neither_tasks_loss() -> None:
    batch = row_batch(16, tasks=TASKS)
    plain, calibrated = small(calibration_weight=0.0), small(calibration_weight=2.0, embedding_l2=0.1)
    with torch.no_grad():
        calibrated.bias[1] = plain.bias[1] = 1.0  # purchases likelier than clicks
    losses, extra = plain.task_losses(batch)
    again, found = calibrated.task_losses(batch)
    torch.testing.assert_close(losses, again)
    assert extra is None and found is not None
    chances = calibrated.predict(batch)
    excess = (chances["buy"] - chances["click"]).clamp(min=0).mean()
    assert excess > 0
    shrinkage = calibrated.regularisation(calibrated.fields(batch))
    assert shrinkage is not None
    torch.testing.assert_close(found, 2.0 * excess + shrinkage)


def test_only_a_task_and_the_one_it_is_given_are_calibrated() -> None:
    assert small(TASKS).calibrated == [(1, 0)]
    assert small(("buy", "like", "click")).calibrated == [(0, 2)]
    assert small(("click", "like")).calibrated == []
    assert small(("click", "like")).task_losses(row_batch(4, tasks=("click", "like")))[1] is None
    click, buy = row_features(("click", "buy")).tasks
    features = replace(row_features(), tasks=(click, replace(buy, kind="regression")))
    assert AITM(row_spec(features=features)).calibrated == []


def test_the_calibrator_keeps_conversions_below_clicks() -> None:
    """Labels that contradict it, more purchases than clicks, are where one sees it."""
    batch = row_batch(64, tasks=TASKS[:2])
    batch.labels[:, 0], batch.labels[:, 1] = 0.0, 1.0
    excesses = []
    for weight in (0.0, 5.0):
        model = small(TASKS[:2], calibration_weight=weight)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(30):
            optimizer.zero_grad()
            model.loss(batch).total.backward()
            optimizer.step()
        found = model.predict(batch)
        excesses.append(float((found["buy"] - found["click"]).clamp(min=0).mean()))
    assert excesses[0] > 0.8
    assert excesses[1] < 0.1


def test_a_single_task_has_nobody_to_hear_from() -> None:
    model = small(("click",))
    assert model.attention is None and len(model.transfers) == 0
    assert model.predict(row_batch(3))["click"].shape == (3,)
