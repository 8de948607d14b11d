from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.data.columns import SparseOptions
from genrec.data.fitted_features import FeatureFit, FittedFeatures
from genrec.data.labels import declared_labels
from genrec.data.rows import Rows, RowsView
from genrec.features import TaskSpec
from genrec.models.esmm import ESMM, joint_loss
from genrec.trainers.scoring import evaluate_rows
from tests.models.row_contract import RowContract, fit, row_batch, row_features, row_spec, rows
from tests.nn.test_experts import expert_of, tower_of

TASKS = ("click", "buy")
LOG3 = math.log(3.0)


class TestESMM(RowContract):
    TASKS = TASKS
    EPOCHS = 12
    LEARNS = 0.7

    def build(self, spec: DataSpec) -> nn.Module:
        return ESMM(spec, embedding_dim=4, hidden_dims=[16])

    def test_shared_and_private_parameters_are_the_models(self, model: Any) -> None:
        """The tasks share the embeddings only, so there is no last shared layer."""
        private = {id(weight) for weight in model.private_parameters()}
        assert [name for name, weight in model.named_parameters() if id(weight) not in private] == ["fields.weight"]
        assert model.last_shared() == []


def small(tasks: tuple[str, ...] = TASKS) -> ESMM:
    torch.manual_seed(0)
    return ESMM(row_spec(tasks), embedding_dim=4, hidden_dims=[8, 6])


def constant() -> ESMM:
    """pCTR = 1/2 and pCVR = 1/4 on every row, so pCTCVR = 1/8."""
    model = small()
    with torch.no_grad():
        model.heads.output.weight.zero_()
        model.bias.copy_(torch.tensor([0.0, -LOG3]))
    return model


def labelled(labels: list[list[float]]) -> RowBatch:
    return replace(row_batch(len(labels), tasks=TASKS), labels=torch.tensor(labels))


def test_predictions_by_hand() -> None:
    found = constant().predict(row_batch(2, tasks=TASKS))
    assert {name: values.tolist() for name, values in found.items()} == {
        "click": pytest.approx([1 / 2, 1 / 2]),
        "buy": pytest.approx([1 / 8, 1 / 8]),
        "buy_given_click": pytest.approx([1 / 4, 1 / 4]),
    }


def test_losses_by_hand() -> None:
    """An impression, a click, a click and a conversion: of the click log 2 each, of both 2 log(8/7) + log 8."""
    losses, extra = constant().task_losses(labelled([[0, 0], [1, 0], [1, 1]]))
    assert losses["click"].item() == pytest.approx(math.log(2.0))
    assert losses["buy"].item() == pytest.approx((2 * math.log(8 / 7) + math.log(8.0)) / 3)
    assert extra is None


def test_the_conversion_learns_through_the_product_only() -> None:
    """With p = 1/8 and pCVR = 1/4 the gradient by the logit of pCVR is -(1 - 1/4) = -3/4 of a conversion, and
    p (1 - 1/4) / (1 - p) = 3/28 of a row without one, clicked or not. The click's loss gives it nothing."""
    model = constant()
    for labels, expected in (([1.0, 1.0], -3 / 4), ([1.0, 0.0], 3 / 28), ([0.0, 0.0], 3 / 28)):
        losses, _ = model.task_losses(labelled([labels]))
        [of_both] = torch.autograd.grad(losses["buy"], model.bias, retain_graph=True)
        assert of_both[1].item() == pytest.approx(expected)
        [of_click] = torch.autograd.grad(losses["click"], model.bias, retain_graph=True)
        assert of_click[1].item() == 0.0


def test_the_loss_of_the_click_does_not_reach_the_network_of_the_conversion() -> None:
    model = small()
    losses, _ = model.task_losses(row_batch(64, tasks=TASKS))
    for name, expected in (("click", [True, False]), ("buy", [True, True])):
        weights = [weight for weight in model.networks.parameters() if weight.ndim == 3]
        for gradient in torch.autograd.grad(losses[name], weights, retain_graph=True):
            halves = gradient.flatten(0, 1).chunk(2)  # of pCTR and of pCVR
            assert [bool(half.any()) for half in halves] == expected


def test_both_networks_equal_loops() -> None:
    model, batch = small(), row_batch(16, tasks=TASKS)
    fields = model.fields(batch)
    inputs = model.inputs(fields, batch)
    found = model.logits(fields, batch)
    for place in range(2):
        expected = tower_of(model.heads, place, expert_of(model.networks, place, inputs))
        torch.testing.assert_close(found[:, place], expected)


def test_the_joint_loss_equals_the_cross_entropy_of_the_product() -> None:
    click, conversion = torch.randn(2, 500, dtype=torch.float64) * 3
    labels = (torch.rand(500) < 0.3).double()
    expected = nn.functional.binary_cross_entropy(click.sigmoid() * conversion.sigmoid(), labels)
    assert joint_loss(click, conversion, labels).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("click", "conversion", "label", "expected"),
    [
        (200.0, 200.0, 0.0, 200 - math.log(2.0)),  # 1 - p is twice exp(-200)
        (200.0, 200.0, 1.0, 0.0),
        (-200.0, -200.0, 1.0, 400.0),
        (-200.0, -200.0, 0.0, 0.0),
        (200.0, 0.0, 0.0, math.log(2.0)),
    ],
)
def test_certain_predictions_have_finite_losses_and_gradients(
    click: float, conversion: float, label: float, expected: float
) -> None:
    logits = torch.tensor([click, conversion], requires_grad=True)
    loss = joint_loss(logits[:1], logits[1:], torch.tensor([label]))
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if expected > 100:
        assert logits.grad.abs().max() > 0.4  # the further off, the less it may vanish


def test_without_a_click_there_is_no_conversion() -> None:
    model = small()
    expected, _ = model.task_losses(labelled([[0, 0], [1, 0], [1, 1]]))
    found, _ = model.task_losses(labelled([[0, 1], [1, 0], [1, 1]]))
    torch.testing.assert_close(found, expected)
    unknown, _ = model.task_losses(labelled([[math.nan, math.nan], [1, 0], [1, 1]]))
    assert unknown["buy"].item() != pytest.approx(expected["buy"].item())


def table_of(labels: list[list[float]]) -> tuple[FittedFeatures, Rows]:
    """What a table with these clicks and purchases, NaN where a cell is empty, is for a model."""
    cells = [[None if math.isnan(value) else value for value in column] for column in zip(*labels, strict=True)]
    frame = pl.DataFrame({"item": [str(row % 5) for row in range(len(labels))], "click": cells[0], "buy": cells[1]})
    declared = declared_labels({"click": None, "buy": {"given": "click"}})
    fit = FeatureFit({"item": SparseOptions()}, list(declared.values()))
    fit.add(frame, np.arange(len(labels)))
    fitted = fit.finish()
    return fitted, fitted.transform(frame)


@pytest.mark.parametrize("unclicked", [0.0, math.nan])
def test_it_starts_at_the_rate_after_a_click_where_the_table_tells_of_clicked_rows_alone(unclicked: float) -> None:
    """40 of 100 clicked, 10 of these bought: a quarter, not 0.25 / 0.4 of them."""
    fitted, _ = table_of([[0, unclicked]] * 60 + [[1, 0]] * 30 + [[1, 1]] * 10)
    assert [task.mean for task in fitted.tasks] == pytest.approx([0.4, 0.1])
    model = ESMM(DataSpec(features=fitted.spec), embedding_dim=2, hidden_dims=[3])
    assert torch.sigmoid(model.bias[1]).item() == pytest.approx(0.25)


@pytest.mark.parametrize("unclicked", [0.0, math.nan])
def test_its_loss_and_the_metric_are_of_the_same_rows(unclicked: float) -> None:
    """The log-loss of the conversion, of all rows, is its loss; that after a click is of clicked rows."""
    fitted, table = table_of([[0, unclicked]] * 60 + [[1, 0]] * 30 + [[1, 1]] * 10)
    torch.manual_seed(0)
    model = ESMM(DataSpec(features=fitted.spec), embedding_dim=2, hidden_dims=[3]).eval()
    view = RowsView(table, fitted.spec, np.zeros(100, dtype=np.uint8))
    found = evaluate_rows(model, view, "train", progress=False)
    losses, _ = model.task_losses(table.take(np.arange(100)))
    assert found["train/buy/log_loss"] == pytest.approx(losses["buy"].item(), rel=1e-5)
    after_a_click = model.predict(table.take(np.arange(60, 100)))["buy_given_click"].sum().item()
    assert found["train/buy_given_click/calibration"] == pytest.approx(after_a_click / 10, rel=1e-5)


@pytest.mark.parametrize("column", [0, 1])
def test_the_losses_of_two_shares_are_those_of_the_whole(column: int) -> None:
    labels = torch.tensor([[0, 0], [1, 1], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0], [1, 1]])
    batch = replace(row_batch(8, tasks=TASKS), labels=labels.float())
    batch.labels[[0, 2, 4], column] = math.nan  # of the first share three of four, of the second none
    model, known = small(), (~batch.labels.isnan()).float().mean(dim=0)
    whole, _ = model.task_losses(batch)
    parts = [model.task_losses(replace(rows(batch, slice(rank, None, 2)), known=known))[0] for rank in (0, 1)]
    for name in TASKS:
        assert (parts[0][name] + parts[1][name]).item() / 2 == pytest.approx(whole[name].item(), rel=1e-6)


def test_the_order_of_the_tasks_does_not_matter() -> None:
    forwards, backwards = small(), small(("buy", "click"))
    state = forwards.state_dict()
    for name, value in state.items():
        if name != "fields.weight":
            dim = 1 if name == "networks.layers.0.weight" else 0
            state[name] = torch.cat(value.chunk(2, dim)[::-1], dim)
    backwards.load_state_dict(state)
    batch = row_batch(12, tasks=TASKS)
    swapped = replace(batch, labels=batch.labels.flip(1))
    torch.testing.assert_close(forwards.predict(batch), backwards.predict(swapped))
    first, second = forwards.task_losses(batch)[0], backwards.task_losses(swapped)[0]
    assert list(second) == ["buy", "click"]
    torch.testing.assert_close(first, {name: second[name] for name in TASKS})


def test_it_starts_at_the_rate_after_a_click() -> None:
    model = small()
    click, buy = (task.mean for task in row_features(TASKS).tasks)
    with torch.no_grad():
        model.heads.output.weight.zero_()
    found = model.predict(row_batch(1, tasks=TASKS))
    assert found["buy_given_click"].item() == pytest.approx(buy / click)
    assert found["buy"].item() == pytest.approx(buy)


def test_learns_the_conversion_of_rows_without_a_click_too() -> None:
    """A click on an even item is always a purchase; of rows that nobody clicked, no label ever said so."""
    model = small()
    fit(model, row_batch(tasks=TASKS), epochs=10)
    batch = row_batch(seed=7, tasks=TASKS)
    unclicked = rows(batch, batch.labels[:, 0] == 0)
    even = unclicked.sparse[:, 1] % 2 == 0
    found = model.predict(unclicked)["buy_given_click"]
    assert found[even].mean() > 0.7
    assert found[~even].mean() < 0.1


CLICK = TaskSpec(name="click")
BUY = TaskSpec(name="buy", given="click")


@pytest.mark.parametrize(
    "tasks",
    [
        (CLICK,),
        (BUY,),
        (CLICK, TaskSpec(name="like")),
        (CLICK, BUY, TaskSpec(name="like")),
        (CLICK, replace(BUY, kind="regression")),
        (TaskSpec(name="click", given="buy"), BUY),
    ],
)
def test_other_tasks_are_refused_with_what_to_declare(tasks: tuple[TaskSpec, ...]) -> None:
    features = replace(row_features(), tasks=tasks)
    with pytest.raises(GenrecError, match=rf"the data has {tasks[0].name} .*given: click.*data\.tasks.*model=mmoe"):
        ESMM(row_spec(features=features))
