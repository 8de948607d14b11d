"""Wide & Deep: a linear model and a network of the same fields, trained together (Cheng et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.fields import FieldVectors, FirstOrder
from genrec.nn.mlp import MLP


class WideDeep(RowModel):
    """First-order weights of all fields plus an MLP of their vectors and the dense values (section 3, equation 3).

    The paper's crosses of two fields in the wide part are fields that the data may declare; one optimizer trains both
    parts, where the paper gives the wide one FTRL.
    """

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
        check_arguments(WideDeep.__init__, locals(), "model")
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            linear=True,
            embedding_l2=embedding_l2,
            sparse_gradients=sparse_gradients,
        )
        self.wide = FirstOrder(len(self.features.dense))
        self.deep = MLP(self.num_inputs, hidden_dims, 1, dropout=dropout, batch_norm=batch_norm)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.wide(fields, batch)[:, None] + self.deep(self.inputs(fields, batch))
