"""AITM: tasks in a chain, where each hears from the one before it as much as it asks for.

B rows, T tasks, N width of the inputs, D width of a task's representation. Source: Xi et al., KDD 2021
(arXiv 2105.08489).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import Parameter, functional

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel, labels_of
from genrec.nn.experts import Experts, GroupedLinear, Towers
from genrec.nn.fields import FieldVectors


class AITM(RowModel):
    """Adaptive information transfer along the tasks in the order of the data (impression, click, conversion ...).

    The first task is represented by its tower, z_1 = q_1, each other by z_t = AIT(p_t, q_t) with p_t = g_t(z_{t-1}), a
    layer with ReLU. Between a task and the one it is ``given``, the calibrator adds ``calibration_weight`` times the
    mean of max(P(t) - P(given), 0) to the loss, as a conversion cannot be likelier than its click.
    """

    learns_tasks = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        tower_dims: Annotated[Sequence[Count], MinLen(1)] = (128, 64, 32),
        calibration_weight: NotNegative = 0.6,
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(AITM.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        self.calibration_weight = calibration_weight
        names = [task.name for task in self.tasks]
        classified = {task.name for task in self.tasks if task.kind == "classification"}
        self.calibrated = [  # (place of a task, place of the one it is given)
            (place, names.index(task.given))
            for place, task in enumerate(self.tasks)
            if task.given in classified and task.name in classified
        ]
        width = tower_dims[-1]
        self.towers = Experts(len(names), self.num_inputs, tower_dims, dropout=dropout)  # all read the same
        self.transfers = nn.ModuleList(Experts(1, width, (width,), dropout=dropout) for _ in names[1:])  # g_2, g_3 ...
        self.attention = Attention(width) if len(names) > 1 else None
        self.outputs = Towers(len(names), width, ())

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        towers = self.towers(self.inputs(fields, batch)[:, None])  # (B, T, D)
        found = [towers[:, :1]]
        for place, transfer in enumerate(self.transfers, start=1):
            assert self.attention is not None
            found.append(self.attention(torch.cat([transfer(found[-1]), towers[:, place : place + 1]], dim=1)))
        return self.outputs(torch.cat(found, dim=1))

    def task_losses(self, batch: RowBatch) -> tuple[dict[str, Tensor], Tensor | None]:
        fields = self.fields(batch)
        outputs = self.bias + self.logits(fields, batch)
        losses = {
            task.name: self.loss_of(task, outputs[:, i], *labels_of(batch, i)) for i, task in enumerate(self.tasks)
        }
        terms = [term for term in (self.regularisation(fields), self.calibration(outputs)) if term is not None]
        return losses, torch.stack(terms).sum() if terms else None

    def calibration(self, outputs: Tensor) -> Tensor | None:
        """The weighted calibrator for outputs (B, T), or None where there is nothing to calibrate."""
        if not self.calibrated or not self.calibration_weight:
            return None
        chances = torch.sigmoid(outputs.float())
        excess = [functional.relu(chances[:, place] - chances[:, given]).mean() for place, given in self.calibrated]
        return self.calibration_weight * torch.stack(excess).sum()

    def private_parameters(self) -> list[Parameter]:
        parts = (self.towers, self.transfers, self.outputs)  # the attention serves all tasks but the first
        return [self.bias, *(weight for part in parts for weight in part.parameters())]

    def last_shared(self) -> list[Parameter]:
        """None: the tasks share embeddings only, which GradNorm does not measure at."""
        return []


class Attention(nn.Module):
    """What a task makes of what it hears and of its own tower, u in {p, q}: (B, 2, D) -> (B, 1, D).

    The output is sum_u w_u h3(u), where w is the softmax over the two of h1(u) . h2(u) / sqrt(D); h1, h2 and h3 are
    linear and the same for all tasks.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projections = GroupedLinear(1, width, 3 * width, gain=1.0, bias=False)  # h1, h2, h3 side by side

    def forward(self, inputs: Tensor) -> Tensor:
        width = inputs.shape[-1]
        projected = self.projections(inputs.reshape(-1, 1, width)).view(-1, 2, 3, width)
        key, query, value = projected.unbind(dim=2)  # (B, 2, D) each
        weights = torch.softmax((key * query).sum(dim=-1) / width**0.5, dim=1)  # (B, 2)
        return (weights[..., None] * value).sum(dim=1, keepdim=True)
