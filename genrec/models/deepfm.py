"""DeepFM: a factorization machine and a network that share the vectors of the fields (Guo et al., IJCAI 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.crosses import FactorizationMachine
from genrec.nn.fields import FieldVectors
from genrec.nn.mlp import MLP


class DeepFM(RowModel):
    """The logit of a factorization machine plus that of an MLP of the same vectors and the dense values (equations 1
    to 4)."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        hidden_dims: Sequence[Count] = (256, 128),
        dropout: Rate = 0.0,
        batch_norm: bool = False,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(DeepFM.__init__, locals(), "model")
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            linear=True,
            embedding_l2=embedding_l2,
            sparse_gradients=sparse_gradients,
        )
        self.machine = FactorizationMachine(len(self.features.dense), embedding_dim)
        self.deep = MLP(self.num_inputs, hidden_dims, 1, dropout=dropout, batch_norm=batch_norm)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.machine(fields, batch)[:, None] + self.deep(self.inputs(fields, batch))
