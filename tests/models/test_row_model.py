from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.features import TaskSpec
from genrec.models.row_model import RowModel, in_units
from genrec.nn.fields import FieldVectors
from tests.models.row_contract import naive_fields, row_batch, row_features, row_spec

TASKS = ("click", "rating")


class Still(RowModel):
    """Says nothing of a row: every logit is 0, and fields matter to the regularisation only."""

    learns_tasks = None

    def __init__(self, spec: DataSpec, **options: float) -> None:
        super().__init__(spec, embedding_dim=3, **options)  # pyright: ignore
        self.dropout = nn.Dropout(0.5)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.dropout(batch.dense) * 0.0 + (0.0 if not self.training else torch.nan)


class One(Still):
    learns_tasks = 1


def still(*tasks: TaskSpec, **options: float) -> Still:
    return Still(DataSpec(features=replace(row_features(), tasks=tasks)), **options)


CLICK = TaskSpec(name="click", mean=0.2, std=0.4)
RATING = TaskSpec(name="rating", kind="regression", mean=10.0, std=4.0)


def test_starts_at_the_mean_in_the_unit_of_the_label() -> None:
    found = still(CLICK, RATING).eval().predict(row_batch(3))
    torch.testing.assert_close(found["click"], torch.full((3,), 0.2))
    torch.testing.assert_close(found["rating"], torch.full((3,), 10.0))


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_label_that_never_varies_starts_near_it(mean: float) -> None:
    model = still(replace(CLICK, mean=mean), RATING)
    assert model.bias.isfinite().all()
    assert model.predict(row_batch(2))["click"][0].item() == pytest.approx(mean, abs=2e-4)


def test_predicting_evaluates_whatever_the_mode() -> None:
    model = still(CLICK, RATING).train()
    assert model.predict(row_batch(3))["click"].isfinite().all()  # in training mode its logits are nan
    assert model.training and model.dropout.training


def test_losses_worked_by_hand() -> None:
    model = still(CLICK, RATING).eval()
    labels = torch.tensor([[1.0, 14.0], [0.0, torch.nan], [torch.nan, 2.0], [0.0, 10.0]])
    losses, extra = model.task_losses(replace(row_batch(4), labels=labels))
    assert extra is None
    assert losses["click"].item() == pytest.approx(-(math.log(0.2) + 2 * math.log(0.8)) / 3)
    assert losses["rating"].item() == pytest.approx((1 + 4 + 0) / 3)  # in units of the variance
    total = model.loss(replace(row_batch(4), labels=labels))
    assert total.total.item() == pytest.approx(losses["click"].item() + losses["rating"].item())
    assert total.count == 4
    assert {name: part.item() for name, part in total.parts.items()} == {
        "loss/click": losses["click"].item(),
        "loss/rating": losses["rating"].item(),
    }


def test_log_loss_equals_that_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    model = still(CLICK)
    torch.manual_seed(0)
    logits, labels = torch.randn(50), (torch.rand(50) < 0.5).float()
    found = model.loss_of(CLICK, logits, labels).item()
    assert found == pytest.approx(log_loss(labels.numpy(), torch.sigmoid(logits).double().numpy()), rel=1e-5)


def test_certain_mistakes_have_a_finite_loss() -> None:
    model = still(CLICK)
    loss = model.loss_of(CLICK, torch.tensor([-200.0, 200.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(200.0)


def test_labels_without_a_value_have_no_gradient() -> None:
    model = still(CLICK)
    output = torch.tensor([0.3, 0.7], requires_grad=True)
    model.loss_of(CLICK, output, torch.tensor([1.0, torch.nan])).backward()
    assert output.grad is not None
    assert output.grad.tolist() == pytest.approx([torch.sigmoid(torch.tensor(0.3)).item() - 1, 0.0])
    assert model.loss_of(CLICK, output, torch.full((2,), torch.nan)).item() == 0.0


def test_embedding_l2_is_half_the_squared_norm_of_a_rows_vectors() -> None:
    model = still(CLICK, RATING, embedding_l2=0.3).eval()
    batch = row_batch(5, tasks=TASKS)
    losses, extra = model.task_losses(batch)
    squares = [vector.square().sum().item() for row in range(5) for vector in naive_fields(model.fields, batch, row)]
    assert extra is not None
    assert extra.item() == pytest.approx(0.3 / 2 * sum(squares) / 5, rel=1e-5)
    found = model.loss(batch)
    assert found.total.item() == pytest.approx(sum(loss.item() for loss in losses.values()) + extra.item(), rel=1e-5)
    assert found.parts["regularisation"].item() == pytest.approx(extra.item())


def test_embedding_l2_shrinks_what_the_batch_holds_only() -> None:
    model = still(CLICK, RATING, embedding_l2=0.3).eval()
    batch = row_batch(1, tasks=TASKS)
    model.loss(batch).total.backward()
    begin, end = model.fields.rows_of["user"]
    assert model.fields.weight.grad is not None
    touched = model.fields.weight.grad[begin:end].any(dim=1).nonzero().flatten().tolist()
    assert touched == [int(batch.sparse[0, 0])]


def test_inputs_are_vectors_then_dense_values() -> None:
    model = still(CLICK, RATING)
    batch = row_batch(2)
    inputs = model.inputs(model.fields(batch), batch)
    assert inputs.shape == (2, model.num_inputs) == (2, 6 * 3 + 2)
    torch.testing.assert_close(inputs[1], torch.cat([*naive_fields(model.fields, batch, 1), batch.dense[1]]))


def test_units() -> None:
    assert in_units(RATING, torch.tensor([-1.0, 0.5])).tolist() == [6.0, 12.0]
    assert in_units(CLICK, torch.tensor([0.0])).tolist() == [0.5]


def test_needs_a_table() -> None:
    with pytest.raises(GenrecError, match=r"Still predicts labels of rows.*data=frappe"):
        Still(DataSpec(num_users=1, num_items=2))


def test_too_many_labels_are_named() -> None:
    with pytest.raises(
        GenrecError, match=r"One learns one label, and the data has click, rating.*data.tasks=\[click\]"
    ):
        One(row_spec(TASKS))
