"""The factorization machine: effects of single fields and products of every two (Rendle, ICDM 2010)."""

from __future__ import annotations

from torch import Tensor

from genrec.annotations import Count, NotNegative, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.crosses import FactorizationMachine
from genrec.nn.fields import FieldVectors


class FM(RowModel):
    """w0 + sum_i w_i x_i + sum_{i < j} <v_i, v_j> x_i x_j (equation 1); a pooled sequence is one of the fields."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(FM.__init__, locals(), "model")
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            linear=True,
            embedding_l2=embedding_l2,
            sparse_gradients=sparse_gradients,
        )
        self.machine = FactorizationMachine(len(self.features.dense), embedding_dim)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.machine(fields, batch)[:, None]
