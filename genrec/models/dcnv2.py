"""DCN-V2: cross layers with a full matrix, or a low-rank mixture, and a network (Wang et al., WWW 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.crosses import CrossLayer, LowRankCrossLayer
from genrec.nn.fields import FieldVectors
from genrec.nn.mlp import MLP


class DCNv2(RowModel):
    """``num_cross_layers`` crosses of the vectors and dense values with themselves, and an MLP.

    ``structure="parallel"`` adds the logits of both, which is the paper's linear layer over both outputs side by side;
    ``"stacked"`` gives the crosses to the MLP. ``rank`` None crosses with full matrices (equation 1), a number with
    ``num_experts`` products of that rank (equations 3 and 4).
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        num_cross_layers: Count = 3,
        structure: Literal["parallel", "stacked"] = "parallel",
        rank: Count | None = None,
        num_experts: Count = 4,
        hidden_dims: Sequence[Count] = (256, 128),
        dropout: Rate = 0.0,
        batch_norm: bool = False,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(DCNv2.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        width = self.num_inputs
        self.crosses = nn.ModuleList(
            CrossLayer(width) if rank is None else LowRankCrossLayer(width, rank, num_experts)
            for _ in range(num_cross_layers)
        )
        self.deep = MLP(width, hidden_dims, 1, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(width, 1, bias=False) if structure == "parallel" else None

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        first = crossed = self.inputs(fields, batch)
        for layer in self.crosses:
            crossed = layer(first, crossed)
        if self.output is None:
            return self.deep(crossed)
        return self.output(crossed) + self.deep(first)
