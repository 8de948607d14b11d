"""AutoInt: self-attention between the fields of a row (Song et al., CIKM 2019, arXiv 1810.11921)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel
from genrec.nn.crosses import FieldAttention
from genrec.nn.fields import DenseVectors, FieldVectors
from genrec.nn.mlp import MLP


class AutoInt(RowModel):
    """``num_layers`` of multi-head attention over the vectors of all fields, dense ones among them, and a linear layer.

    ``hidden_dims`` adds an MLP beside them, which is AutoInt+ (section 5.5); ``dropout`` is of attention weights and of
    the hidden units of that.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        num_layers: Count = 3,
        num_heads: Count = 2,
        attention_dim: Count = 16,
        hidden_dims: Sequence[Count] = (),
        dropout: Rate = 0.0,
        batch_norm: bool = False,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(AutoInt.__init__, locals(), "model")
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_l2=embedding_l2, sparse_gradients=sparse_gradients
        )
        num_dense = len(self.features.dense)
        self.dense_vectors = DenseVectors(num_dense, embedding_dim)
        widths = [embedding_dim] + [num_heads * attention_dim] * num_layers
        self.layers = nn.Sequential(
            *(FieldAttention(width, attention_dim, num_heads, dropout) for width in widths[:-1])
        )
        self.output = nn.Linear((self.fields.num_fields + num_dense) * widths[-1], 1, bias=False)
        self.deep = (
            MLP(self.num_inputs, hidden_dims, 1, dropout=dropout, batch_norm=batch_norm) if hidden_dims else None
        )

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        found = self.output(self.layers(self.dense_vectors(fields, batch)).flatten(1))
        return found if self.deep is None else found + self.deep(self.inputs(fields, batch))
