"""Shared bottom: one network for all tasks, with a tower for each on top (Caruana 1997, Machine Learning 28).

B rows, T tasks, N width of the inputs, D width of the bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor
from torch.nn import Parameter

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.experts import Experts, Towers
from genrec.nn.fields import FieldVectors


class SharedBottom(RowModel):
    """Hard parameter sharing: everything but the towers serves all tasks alike."""

    learns_tasks = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        bottom_dims: Annotated[Sequence[Count], MinLen(1)] = (128, 64),
        tower_dims: Sequence[Count] = (32,),
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(SharedBottom.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        self.bottom = Experts(1, self.num_inputs, bottom_dims, dropout=dropout)
        self.towers = Towers(len(self.tasks), bottom_dims[-1], tower_dims, dropout=dropout)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        bottom = self.bottom(self.inputs(fields, batch)[:, None])  # (B, 1, D)
        return self.towers(bottom.expand(-1, len(self.tasks), -1))

    def private_parameters(self) -> list[Parameter]:
        return [self.bias, *self.towers.parameters()]

    def last_shared(self) -> list[Parameter]:
        return [self.bottom.last_weight]
