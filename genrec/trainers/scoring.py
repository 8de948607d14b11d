"""Evaluation of a model that predicts the labels of rows, on one part of a table; the same for trained models and
baselines.

B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from genrec.contracts import Losses, RowBatch
from genrec.features import TaskSpec
from genrec.metrics import binary, regression
from genrec.metrics.binary import BinaryAccumulator
from genrec.metrics.regression import RegressionAccumulator
from genrec.progress import track
from genrec.trainers.evaluation import SharedBatches, WeightedMean, device_of, evaluating
from genrec.trainers.world import ALONE, World

_NAMES = {"train": "Scoring training rows", "val": "Validating", "test": "Testing"}
MEAN_OF_TASKS = "auc"  # the one metric that is also averaged over tasks


def evaluate_rows(
    model: Any,
    view: Any,
    part: str,
    *,
    batch_size: int = 8192,
    seed: int = 0,
    progress: bool = True,
    loss: Callable[[Any, RowBatch], Losses] | None = None,
    collect: Callable[[RowBatch, dict[str, torch.Tensor]], None] | None = None,
    world: World = ALONE,
    give_way: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Metrics of every task on ``part``: ``test/auc``, or ``test/<task>/auc`` and their mean where tasks are several.

    Classification has AUC, GAUC (where the view has groups), log-loss, calibration, ECE, normalised entropy and Brier
    score; regression MSE, RMSE, MAE and R2. Rows whose label is not known do not count. A task that is given another is
    also judged on the rows where that one happened, as ``<task>_given_<other>``: by the model's own prediction of that
    where it has one, else by its prediction of the task. ``loss`` adds ``<part>/loss``; ``collect`` is given every
    batch and its predictions. Of a ``world`` of several processes each takes some batches, and all are given the
    metrics of all rows. ``give_way`` is as in ``evaluate_retrieval``.
    """
    judges = {name: _Judge(task, name, view.features.tasks) for task, name in _judged(view.features.tasks)}
    means = WeightedMean()
    options: Any = {"batch_size": batch_size, "progress": progress, "world": world, "give_way": give_way}
    for batch, predictions, losses in _predictions(model, view, part, seed=seed, loss=loss, **options):
        if losses is not None:
            means.add({"loss": losses.total}, losses.count)
        if collect is not None:
            collect(batch, predictions)
        for name, judge in judges.items():
            judge.update(predictions[name if name in predictions else judge.task.name], batch)
    if world.size > 1:
        means = means.together(world)
        for judge in judges.values():
            judge.together(world)
        if collect is not None and hasattr(collect, "together"):
            collect.together(world)  # pyright: ignore[reportFunctionMemberAccess]
    several = len(view.features.tasks) > 1
    found = {name: judge.compute() for name, judge in judges.items()}
    metrics = {f"{name}/{key}" if several else key: value for name, row in found.items() for key, value in row.items()}
    if several:
        areas = [found[task.name][MEAN_OF_TASKS] for task in view.features.tasks if MEAN_OF_TASKS in found[task.name]]
        metrics.update({MEAN_OF_TASKS: float(np.mean(areas))} if areas else {})
    return {f"{part}/{name}": value for name, value in {**means.result(), **metrics}.items()}


def metric_names(tasks: Sequence[TaskSpec], part: str) -> list[str]:
    """What ``evaluate_rows`` may give for these tasks."""
    several = len(tasks) > 1
    names = ["loss", *([MEAN_OF_TASKS] if several else [])]
    for task, name in _judged(tasks):
        kinds = binary.METRICS if task.kind == "classification" else regression.METRICS
        names += [f"{name}/{kind}" if several else kind for kind in kinds]
    return [f"{part}/{name}" for name in names]


def predict_rows(
    model: Any, view: Any, part: str, *, batch_size: int = 8192, progress: bool = False, world: World = ALONE
) -> dict[str, np.ndarray]:
    """(M,) float32 predictions of every task for the rows of ``part``, in stored order; in every process of a
    ``world``."""
    found = [
        {name: values.float().cpu().numpy() for name, values in predictions.items()}
        for _, predictions, _ in _predictions(model, view, part, batch_size=batch_size, progress=progress, world=world)
    ]
    found = world.in_turn(found)
    return {name: np.concatenate([batch[name] for batch in found]) for name in (found[0] if found else ())}


def _predictions(
    model: Any,
    view: Any,
    part: str,
    *,
    batch_size: int,
    progress: bool,
    world: World,
    seed: int = 0,
    loss: Any = None,
    give_way: Callable[[], None] | None = None,
) -> Iterator[tuple[RowBatch, dict[str, torch.Tensor], Losses | None]]:
    device = device_of(model)
    with evaluating(model, seed):
        batches = SharedBatches(view.eval_batches(part, batch_size=batch_size), world, give_way)
        for batch in track(batches, _NAMES.get(part, part), enabled=progress):
            batch = batch.to(device)
            yield batch, model.predict(batch), None if loss is None else loss(model, batch)


def _judged(tasks: Sequence[TaskSpec]) -> Iterator[tuple[TaskSpec, str]]:
    names = {task.name for task in tasks}
    for task in tasks:
        yield task, task.name
        if task.given in names:
            yield task, task.conditional


class _Judge:
    """Gathers the predictions of one task, all of them or (``name`` is its conditional) those where ``given``
    happened."""

    def __init__(self, task: TaskSpec, name: str, tasks: Sequence[TaskSpec]) -> None:
        places = [other.name for other in tasks]
        self.task = task
        self.place = places.index(task.name)
        self.given = places.index(task.given) if task.given and name == task.conditional else None
        self.binary = task.kind == "classification"
        self.gathered = BinaryAccumulator() if self.binary else RegressionAccumulator()

    def update(self, predicted: torch.Tensor, batch: RowBatch) -> None:
        labels = batch.labels[:, self.place]
        kept = ~labels.isnan()
        if self.given is not None:
            kept &= batch.labels[:, self.given] == 1
        predicted, labels = predicted[kept], labels[kept]
        if isinstance(self.gathered, BinaryAccumulator):
            self.gathered.update(predicted, labels, None if batch.groups is None else batch.groups[kept])
        else:
            self.gathered.update(predicted, labels)

    def together(self, world: World) -> None:
        """Adds what the other processes have gathered."""
        gathered: Any = self.gathered
        gathered.replace(world.in_turn(gathered.batches))

    def compute(self) -> dict[str, float]:
        return self.gathered.compute()
