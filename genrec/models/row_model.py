"""What models of a table's rows share: vectors of the fields, the losses of the tasks, predictions in their units.

B rows, T tasks, S + Q fields, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from genrec.contracts import DataSpec, GenrecError, Losses, RowBatch, Task
from genrec.features import FeatureSpec, TaskSpec
from genrec.nn.fields import FieldEmbedding, FieldVectors
from genrec.nn.serving import evaluating


class RowModel(nn.Module):
    """Predicts the labels of rows; a subclass makes ``logits``. ``learns_tasks`` says how many it can learn at once.

    A classification task has the binary cross-entropy, a regression task the squared error of its label with mean
    0 and variance 1; rows whose label is not known do not count. The output starts at the mean label. ``embedding_l2``
    adds embedding_l2 / 2 times the squared norm of the vectors of a row, mean over rows: only what a batch holds is
    shrunk (the mini-batch aware regularisation of Zhou et al., KDD 2018).
    """

    view = "rows"
    task = Task.RANKING
    learns_tasks: int | None = 1  # None: any number
    suggested_batch_size = 1024

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: int,
        linear: bool = False,
        embedding_l2: float = 0.0,
        sparse_gradients: bool = False,
        attention_dims: Sequence[int] = (36,),
    ) -> None:
        super().__init__()
        self.features = features_of(spec, type(self))
        self.fields = FieldEmbedding(
            self.features,
            embedding_dim,
            linear=linear,
            sparse_gradients=sparse_gradients,
            attention_dims=attention_dims,
        )
        self.embedding_l2 = embedding_l2
        self.bias = Parameter(torch.tensor([_start(task) for task in self.tasks]))

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        return self.features.tasks

    @property
    def num_inputs(self) -> int:
        """Width of ``inputs``."""
        return self.fields.num_fields * self.fields.embedding_dim + len(self.features.dense)

    def inputs(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        """(B, num_inputs) the vectors of all fields side by side, then the dense values."""
        flat = fields.vectors.flatten(1)
        return torch.cat([flat, batch.dense.to(flat.dtype)], dim=1) if batch.dense.shape[1] else flat

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        """(B, T) what is added to ``bias``: logits of classification tasks, standardised values of others."""
        raise NotImplementedError

    def task_losses(self, batch: RowBatch) -> tuple[dict[str, Tensor], Tensor | None]:
        """The mean loss of every task, and what is neither (regularisation), or None."""
        fields = self.fields(batch)
        outputs = self.bias + self.logits(fields, batch)
        losses = {
            task.name: self.loss_of(task, outputs[:, i], *labels_of(batch, i)) for i, task in enumerate(self.tasks)
        }
        return losses, self.regularisation(fields)

    def loss(self, batch: RowBatch) -> Losses:
        """The sum of the tasks' losses and of the regularisation, with the losses of the tasks where there are
        several."""
        return summed(*self.task_losses(batch), len(batch))

    @torch.no_grad()
    def predict(self, batch: RowBatch) -> dict[str, Tensor]:
        """(B,) float32 probabilities, or values in the unit of the label, by task."""
        with evaluating(self):
            outputs = (self.bias + self.logits(self.fields(batch), batch)).float()
        return {task.name: in_units(task, outputs[:, i]) for i, task in enumerate(self.tasks)}

    def loss_of(self, task: TaskSpec, output: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
        """The mean loss of ``output`` (B,) over rows whose label (B,) is known; 0 where none is. ``share`` as in
        ``mean_of_known``."""
        known = ~labels.isnan()
        labels = torch.where(known, labels, 0.0)
        with torch.autocast(output.device.type, enabled=False):
            output = output.float()
            if task.kind == "classification":
                losses = functional.binary_cross_entropy_with_logits(output, labels, reduction="none")
            else:
                losses = (output - (labels - task.mean) / task.std).square()
            return mean_of_known(losses, known, share)

    def regularisation(self, fields: FieldVectors) -> Tensor | None:
        if not self.embedding_l2:
            return None
        return 0.5 * self.embedding_l2 * fields.vectors.float().square().sum(dim=(1, 2)).mean()

    def private_parameters(self) -> list[Parameter]:
        """The parameters of single tasks; all others are shared."""
        return []

    def last_shared(self) -> list[Parameter]:
        """The weight of the last layer that all tasks share (of each expert, where there are several)."""
        return []


def labels_of(batch: RowBatch, task: int) -> tuple[Tensor, Tensor | None]:
    """The labels (B,) of a task and, of a part of a batch, the share of the whole whose label is known."""
    return batch.labels[:, task], None if batch.known is None else batch.known[task]


def mean_of_known(losses: Tensor, known: Tensor, share: Tensor | None = None) -> Tensor:
    """The mean of ``losses`` (B,) over the rows that are ``known`` (B,), 0 where none is.

    Of a part of a batch, the sum is divided by as many rows as would be known were the ``share`` that of the whole:
    then the mean over all parts, each weighted by its rows, is the mean over the known rows of the whole.
    """
    count = known.sum().clamp(min=1)
    if share is not None:
        count = torch.where(share > 0, share * len(known), 1.0)
    return (losses * known).sum() / count


def summed(losses: dict[str, Tensor], extra: Tensor | None, count: int) -> Losses:
    """The losses of the tasks and what is neither as the loss of ``count`` rows."""
    total = torch.stack(list(losses.values())).sum()
    parts = {f"loss/{name}": value.detach() for name, value in losses.items()} if len(losses) > 1 else {}
    if extra is not None:
        total, parts = total + extra, {**parts, "regularisation": extra.detach()}
    return Losses(total, count, parts)


def features_of(spec: DataSpec, model: type) -> FeatureSpec:
    """The fields and tasks of a table, or an error that says what is wrong with them for such a model."""
    if spec.features is None:
        raise GenrecError(
            f"{model.__name__} predicts labels of rows, and these data have none. Choose a table "
            "(data=frappe, data=synthetic_clicks, data=table ...)."
        )
    names = [task.name for task in spec.features.tasks]
    limit = getattr(model, "learns_tasks", None)
    if limit is not None and len(names) > limit:
        raise GenrecError(
            f"{model.__name__} learns {'one label' if limit == 1 else f'at most {limit} labels'}, and the data has "
            f"{', '.join(names)}. Choose one (data.tasks=[{names[0]}]), or a model of several tasks (model=mmoe)."
        )
    return spec.features


def in_units(task: TaskSpec, outputs: Tensor) -> Tensor:
    """Model outputs as probabilities, or as values in the unit of the label."""
    return torch.sigmoid(outputs) if task.kind == "classification" else outputs * task.std + task.mean


def _start(task: TaskSpec) -> float:
    if task.kind == "regression":
        return 0.0
    rate = min(max(task.mean, 1e-4), 1 - 1e-4)
    return math.log(rate / (1 - rate))
