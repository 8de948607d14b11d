"""PLE: levels of experts, some of a single task and some of all, so that tasks need not agree on everything.

B rows, T tasks, N width of the inputs, D width of an expert's output. Source: Tang et al., RecSys 2020
(10.1145/3383313.3412236).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import Parameter

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.experts import Experts, Gates, Towers, mixed
from genrec.nn.fields import FieldVectors


class PLE(RowModel):
    """Progressive layered extraction: the last of ``num_levels`` levels feeds the towers; one level alone is CGC.

    ``num_experts`` are those of each task in a level, ``num_shared_experts`` those of all.
    """

    learns_tasks = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        num_levels: Count = 2,
        num_experts: Count = 2,
        num_shared_experts: Count = 2,
        expert_dims: Annotated[Sequence[Count], MinLen(1)] = (64,),
        tower_dims: Sequence[Count] = (32,),
        dropout: Rate = 0.0,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(PLE.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        counts = (len(self.tasks), num_experts, num_shared_experts)
        levels: list[Level] = []
        for i in range(num_levels):
            width = expert_dims[-1] if levels else self.num_inputs
            first, last = i == 0, i == num_levels - 1
            levels.append(Level(*counts, width, expert_dims, first=first, last=last, dropout=dropout))
        self.levels = nn.ModuleList(levels)
        self.towers = Towers(len(self.tasks), expert_dims[-1], tower_dims, dropout=dropout)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        of_tasks = of_all = self.inputs(fields, batch)[:, None]  # (B, 1, N)
        for level in self._levels():
            of_tasks, of_all = level(of_tasks, of_all)
        return self.towers(of_tasks)

    def private_parameters(self) -> list[Parameter]:
        """Experts and gates of single tasks too; below the last level other tasks hear of them by the shared gate."""
        levels = [weight for level in self._levels() for weight in level.private_parameters()]
        return [self.bias, *levels, *self.towers.parameters()]

    def last_shared(self) -> list[Parameter]:
        return [self._levels()[-1].shared_experts.last_weight]

    def _levels(self) -> list[Level]:
        return [level for level in self.levels if isinstance(level, Level)]


class Level(nn.Module):
    """Customized gate control (section 4.1): what each task, and all of them, make of a level's experts.

    The gate of a task is over its own and the shared experts and reads what the task brings; the shared gate, which
    the last level does without, is over all experts and reads what is shared (section 4.2). In the ``first`` level they
    all read the same.
    """

    def __init__(
        self,
        num_tasks: int,
        num_experts: int,
        num_shared: int,
        input_dim: int,
        dims: Sequence[int],
        *,
        first: bool,
        last: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        groups, total = 1 if first else num_tasks, num_tasks * num_experts
        self.num_tasks = num_tasks
        self.experts = Experts(total, input_dim, dims, num_groups=groups, dropout=dropout)
        self.shared_experts = Experts(num_shared, input_dim, dims, dropout=dropout)
        self.gates = Gates(num_tasks, num_experts + num_shared, input_dim, num_groups=groups)
        self.shared_gate = None if last else Gates(1, total + num_shared, input_dim)

    def forward(self, of_tasks: Tensor, of_all: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N), or (B, 1, N) in the first level, and (B, 1, N): the same with width D, of T and of 1."""
        own, shared = self.experts(of_tasks), self.shared_experts(of_all)  # (B, T x own, D), (B, shared, D)
        by_task = own.unflatten(1, (self.num_tasks, -1))
        for_each = shared[:, None].expand(-1, self.num_tasks, -1, -1)
        mixtures = mixed(self.gates(of_tasks), torch.cat([by_task, for_each], dim=2))
        if self.shared_gate is None:
            return mixtures, of_all
        return mixtures, mixed(self.shared_gate(of_all), torch.cat([own, shared], dim=1)[:, None])

    def private_parameters(self) -> list[Parameter]:
        return [*self.experts.parameters(), *self.gates.parameters()]
