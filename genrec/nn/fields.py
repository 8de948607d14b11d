"""Vectors of a table's fields from one stacked table, so that a batch is one look-up and one scatter of gradients.

B rows, S sparse fields, Q sequence fields, L places of a sequence, D width, R rows of the stacked table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genrec.contracts import IGNORE, GenrecError, RowBatch
from genrec.features import FeatureSpec
from genrec.nn.interest import LocalActivation
from genrec.nn.lookup import look_up


@dataclass(frozen=True)
class FieldVectors:
    """``vectors`` (B, S + Q, D), sparse fields first, then pooled sequences; ``linear`` (B, S + Q) their first-order
    weights, or None."""

    vectors: Tensor
    linear: Tensor | None


class FieldEmbedding(nn.Module):
    """A learned vector for every id of every field, in one table of which each vocabulary has a range of rows.

    With ``linear`` a first-order weight stands beside each vector, fetched by the same look-up. ``sparse_gradients``
    gives gradients of the rows in a batch only, for tables too large for dense ones: they need an optimizer that takes
    such (``optimizer=rowwise_adagrad``). Sequences are pooled as their field says, by networks of ``attention_dims``
    hidden units where that is "attention"; no id gives a vector of zeros. A vocabulary that one field compresses is
    compressed wherever it stands.
    """

    def __init__(
        self,
        features: FeatureSpec,
        embedding_dim: int,
        *,
        linear: bool = False,
        sparse_gradients: bool = False,
        init_std: float = 0.01,
        attention_dims: Sequence[int] = (36,),
    ) -> None:
        super().__init__()
        self.features = features
        self.embedding_dim = embedding_dim
        self.has_linear = linear
        self.sparse_gradients = sparse_gradients
        self.buckets = _buckets(features)  # of the vocabularies that are compressed
        self.rows_of, num_rows = _layout(features, self.buckets)  # rows of each vocabulary or part of one
        self.weight = nn.Parameter(torch.empty(max(num_rows, 1), embedding_dim + linear))
        nn.init.normal_(self.weight, std=init_std)
        with torch.no_grad():
            for table in self.buckets:  # a product of two vectors starts as the one times about 1
                begin, end = self.rows_of[table + _REMAINDER]
                self.weight[begin:end] += 1.0
        self.offsets: Tensor  # (S,) the first row of each field
        self.divisors: Tensor  # (S,) what its ids are divided by to find their row
        self.compressed: Tensor  # places of the fields whose vector is a product
        self.remainders: Tensor  # the first row of the second factor of those
        tables = [field.table for field in features.sparse]
        compressed = [place for place, table in enumerate(tables) if table in self.buckets]
        for name, values in {
            "offsets": [self.rows_of[_first_part(table, self.buckets)][0] for table in tables],
            "divisors": [self.buckets.get(table, 1) for table in tables],
            "compressed": compressed,
            "remainders": [self.rows_of[tables[place] + _REMAINDER][0] for place in compressed],
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.attention = nn.ModuleDict(
            {
                str(place): LocalActivation(embedding_dim, attention_dims)
                for place, field in enumerate(features.sequences)
                if field.pooling == "attention"
            }
        )

    @property
    def num_fields(self) -> int:
        """S + Q."""
        return len(self.features.sparse) + len(self.features.sequences)

    def forward(self, batch: RowBatch) -> FieldVectors:
        """The vectors of all fields, and their first-order weights where there are any."""
        rows = [self._rows(batch.sparse), *(self._places(batch, place) for place in range(len(batch.sequences)))]
        # One look-up, because each of them costs a gradient as large as the table.
        found, *sequences = self._look_up(torch.cat(rows, dim=1)).split([part.shape[1] for part in rows], dim=1)
        if len(self.compressed):
            rests = batch.sparse[:, self.compressed] % self.divisors[self.compressed] + self.remainders
            product = found[:, self.compressed] * self._look_up(rests)
            found = found.index_copy(1, self.compressed, product.to(found.dtype))
        if sequences:
            pooled = [self._pooled(batch, place, vectors, found) for place, vectors in enumerate(sequences)]
            found = torch.cat([found, torch.stack(pooled, dim=1)], dim=1)
        if not self.has_linear:
            return FieldVectors(found, None)
        vectors, linear = found.split([self.embedding_dim, 1], dim=2)
        return FieldVectors(vectors.contiguous(), linear.squeeze(2))  # copied once here rather than at every use

    def sequence(self, batch: RowBatch, place: int) -> tuple[Tensor, Tensor]:
        """The vectors (B, L, D, or D + 1 with first-order weights) of a sequence field and which places (B, L) hold an
        id; what stands at others means nothing."""
        vectors = self._look_up(self._places(batch, place))
        return self._second_factor(batch, place, vectors), batch.sequences[place] != IGNORE

    def memory(self) -> dict[str, int]:
        """Bytes of the weights of each vocabulary (of its parts, where it is compressed)."""
        width = self.weight.shape[1] * self.weight.element_size()
        return {name: (end - begin) * width for name, (begin, end) in self.rows_of.items()}

    def _look_up(self, rows: Tensor) -> Tensor:
        return look_up(rows, self.weight, sparse=self.sparse_gradients)

    def _rows(self, ids: Tensor) -> Tensor:
        """(B, S) rows of ids, of the first factor where a vector is a product of two."""
        return (ids // self.divisors if len(self.compressed) else ids) + self.offsets

    def _places(self, batch: RowBatch, place: int) -> Tensor:
        """(B, L) the same of a sequence field; any row of it where there is no id."""
        table = self.features.sequences[place].table
        begin, _ = self.rows_of[_first_part(table, self.buckets)]
        return batch.sequences[place].long().clamp(min=0) // self.buckets.get(table, 1) + begin

    def _second_factor(self, batch: RowBatch, place: int, vectors: Tensor) -> Tensor:
        table = self.features.sequences[place].table
        if table not in self.buckets:
            return vectors
        rests = batch.sequences[place].long().clamp(min=0) % self.buckets[table]
        return vectors * self._look_up(rests + self.rows_of[table + _REMAINDER][0])

    def _pooled(self, batch: RowBatch, place: int, vectors: Tensor, sparse: Tensor) -> Tensor:
        """(B, D or D + 1) one vector for a sequence whose ids have ``vectors`` (B, L, D or D + 1)."""
        field = self.features.sequences[place]
        vectors, there = self._second_factor(batch, place, vectors), batch.sequences[place] != IGNORE
        if field.pooling == "attention":
            assert field.target is not None
            target = sparse[:, self.features.place_of(field.target), : self.embedding_dim]
            weights = self.attention[str(place)](target, vectors[..., : self.embedding_dim], there)
        else:
            weights = there.to(vectors.dtype)
            if field.pooling == "mean":
                weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
        return torch.bmm(weights.to(vectors.dtype)[:, None], vectors).squeeze(1)


_QUOTIENT, _REMAINDER = "/quotient", "/remainder"


def _buckets(features: FeatureSpec) -> dict[str, int]:
    """The number of remainders of every vocabulary that is compressed."""
    found: dict[str, int] = {}
    for field in features.sparse:
        if field.compression != "none" and found.setdefault(field.table, field.buckets) != field.buckets:
            raise GenrecError(
                f"Fields of table={field.table} are compressed to {found[field.table]} and to {field.buckets} buckets. "
                "Fields of one table share its vectors: give them the same number of buckets, or tables of their own."
            )
    return found


def _first_part(table: str, buckets: dict[str, int]) -> str:
    return table + _QUOTIENT if table in buckets else table


def _layout(features: FeatureSpec, buckets: dict[str, int]) -> tuple[dict[str, tuple[int, int]], int]:
    """The rows of every vocabulary, one after the other, and how many there are in all."""
    sizes: dict[str, int] = {}
    for field in (*features.sparse, *features.sequences):
        sizes[field.table] = max(field.size, sizes.get(field.table, 0))
    rows: dict[str, tuple[int, int]] = {}
    begin = 0
    for table, size in sizes.items():
        parts = {table: size}
        if table in buckets:
            parts = {table + _QUOTIENT: -(-size // buckets[table]), table + _REMAINDER: buckets[table]}
        for name, length in parts.items():
            rows[name] = (begin, begin + length)
            begin += length
    return rows, begin


class FirstOrder(nn.Module):
    """The first-order term of a factorization machine, without its bias: weights of ids and of dense values, (B,).

    It needs a ``FieldEmbedding`` with ``linear``.
    """

    def __init__(self, num_dense: int) -> None:
        super().__init__()
        self.dense = nn.Parameter(torch.zeros(num_dense))

    def forward(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        assert fields.linear is not None
        total = fields.linear.sum(dim=1)
        return total + batch.dense @ self.dense.to(batch.dense.dtype) if len(self.dense) else total


class DenseVectors(nn.Module):
    """A learned vector for every dense field, which its value scales: a field like any other."""

    def __init__(self, num_dense: int, embedding_dim: int, *, init_std: float = 0.01) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_dense, embedding_dim))
        if num_dense:
            nn.init.normal_(self.weight, std=init_std)

    def forward(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        """(B, S + Q + F, D) the vectors of all fields, those of dense ones last."""
        if not len(self.weight):
            return fields.vectors
        return torch.cat([fields.vectors, batch.dense[..., None] * self.weight], dim=1)
