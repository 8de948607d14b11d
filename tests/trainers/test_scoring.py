from __future__ import annotations

import numpy as np
import pytest
import torch
from row_toys import PlantedView
from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score
from torch import nn

from genrec.contracts import Losses, RowBatch, Task
from genrec.metrics.binary import gauc
from genrec.trainers.scoring import evaluate_rows, metric_names, predict_rows

TASKS = ("click", "buy", "rating")


class Fixed(nn.Module):
    """Predicts from the first dense value; of a purchase also what it would be after a click."""

    view, task = "rows", Task.RANKING

    def __init__(self, tasks: tuple[str, ...], conditional: bool = False) -> None:
        super().__init__()
        self.names, self.conditional = tasks, conditional

    def predict(self, batch: RowBatch) -> dict[str, torch.Tensor]:
        chance = torch.sigmoid(batch.dense[:, 0])
        found = {name: chance * (10 if name == "rating" else 1) for name in self.names}
        return {**found, **({"buy_given_click": 1 - chance} if self.conditional else {})}


def test_one_task_has_the_metrics_of_scikit_learn_by_their_plain_names():
    view = PlantedView()
    found = evaluate_rows(Fixed(("click",)), view, "test", batch_size=100, progress=False)
    whole = view.parts["test"]
    labels, chances = whole.labels[:, 0].numpy(), torch.sigmoid(whole.dense[:, 0]).double().numpy()
    assert found["test/auc"] == pytest.approx(roc_auc_score(labels, chances))
    assert found["test/log_loss"] == pytest.approx(log_loss(labels, chances), abs=1e-6)
    assert found["test/calibration"] == pytest.approx(chances.sum() / labels.sum())
    assert whole.groups is not None
    assert found["test/gauc"] == pytest.approx(gauc(chances, labels, whole.groups).value)
    assert "test/loss" not in found


def test_several_tasks_go_by_name_and_their_auc_also_as_a_mean():
    view = PlantedView(TASKS)
    found = evaluate_rows(Fixed(TASKS), view, "val", batch_size=100, progress=False)
    whole = view.parts["val"]
    labels, chances = whole.labels.numpy(), torch.sigmoid(whole.dense[:, 0]).numpy()
    areas = [roc_auc_score(labels[:, place], chances) for place in (0, 1)]
    assert [found["val/click/auc"], found["val/buy/auc"]] == pytest.approx(areas)
    assert found["val/auc"] == pytest.approx(np.mean(areas))
    known = ~np.isnan(labels[:, 2])
    assert known.sum() == 256  # of every second row nothing is known
    expected = mean_squared_error(labels[known, 2], 10 * chances[known]) ** 0.5
    assert found["val/rating/rmse"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_task_given_another_is_also_judged_where_that_one_happened(conditional):
    """Fault of an original: ESMM's conversion after a click was scored on rows without a click."""
    view = PlantedView(TASKS)
    found = evaluate_rows(Fixed(TASKS, conditional), view, "test", batch_size=100, progress=False)
    whole = view.parts["test"]
    clicked = whole.labels[:, 0] == 1
    chances = torch.sigmoid(whole.dense[clicked, 0])
    expected = roc_auc_score(whole.labels[clicked, 1].numpy(), (1 - chances if conditional else chances).numpy())
    assert 0 < clicked.sum() < len(clicked)
    assert found["test/buy_given_click/auc"] == pytest.approx(expected)


@pytest.mark.parametrize("tasks", [("click",), TASKS, ("rating",)])
def test_names_are_known_before_anything_is_measured(tasks):
    view = PlantedView(tasks)
    found = evaluate_rows(
        Fixed(tasks, True), view, "val", progress=False, loss=lambda _, batch: Losses(torch.tensor(2.0), len(batch))
    )
    assert found["val/loss"] == 2.0
    assert set(found) == set(metric_names(view.features.tasks, "val"))


def test_predictions_come_in_stored_order_whatever_the_batches():
    view = PlantedView(("click", "buy"))
    model = Fixed(("click", "buy"), True)
    small, large = (predict_rows(model, view, "test", batch_size=size) for size in (7, 4096))
    assert list(small) == ["click", "buy", "buy_given_click"]
    for name, values in small.items():
        assert np.array_equal(values, large[name])
    assert np.array_equal(small["click"], torch.sigmoid(view.parts["test"].dense[:, 0]).numpy())
