"""The mean label of the training rows, the same for every row: the log-loss and the error that any model must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genrec.annotations import check_arguments
from genrec.contracts import DataSpec, RowBatch, Task
from genrec.models.row_model import features_of


class BaseRate(nn.Module):
    """Predicts the training mean of every task. Nothing to train: it is complete once built."""

    view = "rows"
    task = Task.RANKING
    learns_tasks: int | None = None

    def __init__(self, spec: DataSpec) -> None:
        check_arguments(BaseRate.__init__, locals(), "model")
        super().__init__()
        self.tasks = features_of(spec, BaseRate).tasks
        self.means: Tensor  # (T,)
        self.register_buffer("means", torch.tensor([task.mean for task in self.tasks]))

    @torch.no_grad()
    def predict(self, batch: RowBatch) -> dict[str, Tensor]:
        """(B,) the mean of each task."""
        means = self.means.float().expand(len(batch), -1)
        return {task.name: means[:, place] for place, task in enumerate(self.tasks)}
