"""Logistic regression on ids and values: effects of single fields, no interactions. Linear where labels are values."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from genrec.annotations import NotNegative, check_arguments
from genrec.contracts import DataSpec, RowBatch
from genrec.models.row_model import RowModel, features_of
from genrec.nn.fields import FieldVectors, FirstOrder


class LogisticRegression(RowModel):
    """A weight for every id and every dense field, and a bias. Sequences count the mean weight of their ids, or the
    sum where they are pooled so. ``embedding_l2`` shrinks the weights."""

    def __init__(self, spec: DataSpec, *, embedding_l2: NotNegative = 0.0, sparse_gradients: bool = False) -> None:
        check_arguments(LogisticRegression.__init__, locals(), "model")
        # There are no vectors that could say how much attention an id gets.
        features = features_of(spec, LogisticRegression)
        plain = [
            replace(field, pooling="mean") if field.pooling == "attention" else field for field in features.sequences
        ]
        super().__init__(
            replace(spec, features=replace(features, sequences=tuple(plain))),
            embedding_dim=0,
            linear=True,
            embedding_l2=embedding_l2,
            sparse_gradients=sparse_gradients,
        )
        self.first_order = FirstOrder(len(features.dense))

    def logits(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        return self.first_order(fields, batch)[:, None]

    def regularisation(self, fields: FieldVectors) -> Tensor | None:
        if not self.embedding_l2:
            return None
        assert fields.linear is not None
        return 0.5 * self.embedding_l2 * fields.linear.float().square().sum(dim=1).mean()
