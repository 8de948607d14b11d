"""ESMM: the rate of conversion after a click, learnt from all impressions by what is seen of it there.

B rows. Source: Ma et al., SIGIR 2018 (arXiv 1804.07931).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor
from torch.nn import Parameter, functional

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.features import TaskSpec
from genrec.models.row_model import RowModel, labels_of, mean_of_known
from genrec.nn.experts import Experts, Towers
from genrec.nn.fields import FieldVectors
from genrec.nn.serving import evaluating


class ESMM(RowModel):
    """pCTCVR = pCTR pCVR (equation 1), with losses of the click and of click and conversion (equation 3).

    The two networks share the embeddings and nothing else. pCVR has no loss of its own, so that clicked rows, which are
    no sample of all, are not what it learns from. ``predict`` gives pCTR and pCTCVR by the names of the tasks and pCVR
    as ``TaskSpec.conditional``. A conversion without a click, which a table may hold, counts as none; where it is
    missing the data say so (``genrec.data.labels``).
    """

    learns_tasks = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        hidden_dims: Annotated[Sequence[Count], MinLen(1)] = (128, 64),
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(ESMM.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        self.click, self.conversion = _pair(self.tasks)
        self.networks = Experts(2, self.num_inputs, hidden_dims, dropout=dropout)  # both read the same
        self.heads = Towers(2, hidden_dims[-1], ())
        click, conversion = (self.tasks[place].mean for place in (self.click, self.conversion))
        rate = min(max(conversion / max(click, 1e-4), 1e-4), 1 - 1e-4)
        with torch.no_grad():
            self.bias[self.conversion] = math.log(rate / (1 - rate))  # of a conversion after a click

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        """(B, 2) the logits of pCTR and of pCVR, at the places of the two tasks."""
        return self.heads(self.networks(self.inputs(fields, batch)[:, None]))

    def task_losses(self, batch: RowBatch) -> tuple[dict[str, Tensor], Tensor | None]:
        fields = self.fields(batch)
        click, conversion = self._logits_of(fields, batch)
        clicked, share = labels_of(batch, self.click)
        converted, converted_share = labels_of(batch, self.conversion)
        converted = torch.where((clicked == 0) & ~converted.isnan(), 0.0, converted)
        losses = [
            self.loss_of(self.tasks[self.click], click, clicked, share),
            joint_loss(click, conversion, converted, converted_share),
        ]
        if self.click > self.conversion:
            losses.reverse()
        return {task.name: loss for task, loss in zip(self.tasks, losses, strict=True)}, self.regularisation(fields)

    @torch.no_grad()
    def predict(self, batch: RowBatch) -> dict[str, Tensor]:
        """(B,) float32: pCTR, pCTCVR, and pCVR under the conditional name of the conversion."""
        with evaluating(self):
            click, conversion = (torch.sigmoid(logit) for logit in self._logits_of(self.fields(batch), batch))
        first, second = self.tasks[self.click], self.tasks[self.conversion]
        return {first.name: click, second.name: click * conversion, second.conditional: conversion}

    def private_parameters(self) -> list[Parameter]:
        return [self.bias, *self.networks.parameters(), *self.heads.parameters()]

    def last_shared(self) -> list[Parameter]:
        """None: the tasks share embeddings only, which GradNorm does not measure at."""
        return []

    def _logits_of(self, fields: FieldVectors, batch: RowBatch) -> tuple[Tensor, Tensor]:
        """(B,) float32 of pCTR and of pCVR."""
        outputs = (self.bias + self.logits(fields, batch)).float()
        return outputs[:, self.click], outputs[:, self.conversion]


def joint_loss(click: Tensor, conversion: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
    """The mean cross-entropy of the product of two probabilities given as logits (B,), over labels (B,) not NaN.

    ``share`` is as in ``mean_of_known``. With a and b the logits, log p = log sigmoid(a) + log sigmoid(b), and
    1 - p = (1 - sigmoid(a)) + sigmoid(a) (1 - sigmoid(b)) is summed in logs as well: nothing cancels and no logarithm
    of 0 is taken.
    """
    with torch.autocast(click.device.type, enabled=False):
        click, conversion = click.float(), conversion.float()
        log_click = functional.logsigmoid(click)
        positive = log_click + functional.logsigmoid(conversion)
        negative = torch.logaddexp(functional.logsigmoid(-click), log_click + functional.logsigmoid(-conversion))
        known = ~labels.isnan()
        labels = torch.where(known, labels, 0.0)
        losses = -(labels * positive + (1.0 - labels) * negative)
        return mean_of_known(losses, known, share)


def _pair(tasks: Sequence[TaskSpec]) -> tuple[int, int]:
    """The places of the click and of the conversion that is given it."""
    names = [task.name for task in tasks]
    given = [(names.index(task.given), place) for place, task in enumerate(tasks) if task.given in names]
    if len(tasks) == 2 and len(given) == 1 and all(task.kind == "classification" for task in tasks):
        return given[0]
    found = ", ".join(f"{task.name} ({task.kind}{f', given {task.given}' if task.given else ''})" for task in tasks)
    raise GenrecError(
        f"ESMM learns two labels, a click and a conversion that only follows it, and the data has {found}. Declare the "
        "second as given the first (given: click in the conversion's entry of the data's tasks, both of "
        "kind=classification) and choose the two (data.tasks=[click,conversion]), or take model=mmoe."
    )
