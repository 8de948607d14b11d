"""DIN: a history weighed by what it has to do with the candidate (Zhou et al., KDD 2018, arXiv 1706.06978)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from genrec.annotations import Count, NotNegative, Rate, check_arguments
from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.features import FeatureSpec
from genrec.models.row_model import RowModel, features_of
from genrec.nn.fields import FieldVectors
from genrec.nn.mlp import MLP


class DIN(RowModel):
    """Every sequence that names a ``target`` is summed with weights from its target's vector (equation 2, networks of
    ``attention_dims`` hidden units), whatever its pooling; an MLP reads all vectors and dense values."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 16,
        attention_dims: Sequence[Count] = (36,),
        hidden_dims: Sequence[Count] = (256, 128),
        activation: Literal["dice", "relu"] = "dice",
        dropout: Rate = 0.0,
        batch_norm: bool = False,
        embedding_l2: NotNegative = 0.0,
        sparse_gradients: bool = False,
    ) -> None:
        check_arguments(DIN.__init__, locals(), "model")
        super().__init__(
            replace(spec, features=_attentive(features_of(spec, DIN))),
            embedding_dim=embedding_dim,
            embedding_l2=embedding_l2,
            sparse_gradients=sparse_gradients,
            attention_dims=attention_dims,
        )
        self.deep = MLP(self.num_inputs, hidden_dims, 1, dropout=dropout, activation=activation, batch_norm=batch_norm)

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.deep(self.inputs(fields, batch))


def _attentive(features: FeatureSpec) -> FeatureSpec:
    """The same fields with attention wherever there is a target for it."""
    if not any(field.target for field in features.sequences):
        known = ", ".join(field.name for field in features.sequences) or "none"
        raise GenrecError(
            f"DIN weighs a sequence by a candidate, and no sequence of these data names one (sequences: {known}). "
            "Declare it in the data's features (in a sequence, target: the sparse field that holds the candidate), or "
            "choose a model that needs none (model=deepfm)."
        )
    attentive = [replace(field, pooling="attention") if field.target else field for field in features.sequences]
    return replace(features, sequences=tuple(attentive))
