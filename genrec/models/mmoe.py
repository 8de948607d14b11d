"""MMoE: experts that all tasks share, mixed for each task by a gate of its own.

B rows, T tasks, E experts, N width of the inputs, D width of an expert's output. Source: Ma et al., KDD 2018
(10.1145/3219819.3220007).
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
from genrec.nn.experts import Experts, Gates, Towers, mixed
from genrec.nn.fields import FieldVectors


class MMoE(RowModel):
    """The tower of task k reads sum_e softmax(W_k x)_e f_e(x), with f_e the experts."""

    learns_tasks = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        num_experts: Count = 8,
        expert_dims: Annotated[Sequence[Count], MinLen(1)] = (64,),
        tower_dims: Sequence[Count] = (32,),
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(MMoE.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        self.experts = Experts(num_experts, self.num_inputs, expert_dims, dropout=dropout)
        self.gates = Gates(len(self.tasks), num_experts, self.num_inputs)
        self.towers = Towers(len(self.tasks), expert_dims[-1], tower_dims, dropout=dropout)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        inputs = self.inputs(fields, batch)[:, None]  # (B, 1, N)
        experts = self.experts(inputs)[:, None]  # (B, 1, E, D)
        return self.towers(mixed(self.gates(inputs), experts))

    def private_parameters(self) -> list[Parameter]:
        return [self.bias, *self.gates.parameters(), *self.towers.parameters()]

    def last_shared(self) -> list[Parameter]:
        return [self.experts.last_weight]
