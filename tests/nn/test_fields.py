"""Vectors of fields from one stacked table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import IGNORE, GenrecError, RowBatch
from genrec.features import FeatureSpec, SequenceField, SparseField
from genrec.nn.fields import DenseVectors, FieldEmbedding, FieldVectors, FirstOrder

FEATURES = FeatureSpec(
    sparse=(
        SparseField(name="user", size=5, table="user"),
        SparseField(name="item", size=7, table="item"),
        SparseField(name="last", size=7, table="item"),
    ),
    sequences=(
        SequenceField(name="history", size=7, table="item", max_length=3),
        SequenceField(name="tags", size=4, table="tags", max_length=2, pooling="sum"),
    ),
)
COMPRESSED = replace(
    FEATURES,
    sparse=(
        FEATURES.sparse[0],
        replace(FEATURES.sparse[1], compression="quotient_remainder", buckets=3),
        FEATURES.sparse[2],
    ),
)


def rows_of(sparse: list[list[int]], *sequences: list[list[int]]) -> RowBatch:
    return RowBatch(
        dense=torch.zeros(len(sparse), 0),
        sparse=torch.tensor(sparse, dtype=torch.int32),
        sequences=tuple(torch.tensor(ids, dtype=torch.int32) for ids in sequences),
        labels=torch.zeros(len(sparse), 1),
    )


BATCH = rows_of(
    [[1, 6, 6], [0, 0, 3], [4, 5, 2]],
    [[6, 6, 5], [2, IGNORE, IGNORE], [IGNORE, IGNORE, IGNORE]],
    [[3, 1], [IGNORE, IGNORE], [0, IGNORE]],
)


def test_every_vocabulary_has_rows_of_its_own() -> None:
    fields = FieldEmbedding(FEATURES, 4)
    assert fields.rows_of == {"user": (0, 5), "item": (5, 12), "tags": (12, 16)}
    assert fields.weight.shape == (16, 4)
    assert fields.num_fields == 5


def test_vectors_are_rows_and_pooled_rows() -> None:
    fields = FieldEmbedding(FEATURES, 4)
    user, item, tags = fields.weight[:5], fields.weight[5:12], fields.weight[12:]
    expected = torch.stack(
        [
            torch.stack([user[1], item[6], item[6], (2 * item[6] + item[5]) / 3, tags[3] + tags[1]]),
            torch.stack([user[0], item[0], item[3], item[2], torch.zeros(4)]),
            torch.stack([user[4], item[5], item[2], torch.zeros(4), tags[0]]),
        ]
    )
    found = fields(BATCH)
    torch.testing.assert_close(found.vectors, expected)
    assert found.linear is None


def test_first_order_weights_are_the_last_column() -> None:
    fields = FieldEmbedding(FEATURES, 4, linear=True)
    assert fields.weight.shape == (16, 5)
    found = fields(BATCH)
    assert found.linear is not None
    assert found.vectors.shape == (3, 5, 4) and found.vectors.is_contiguous()
    plain = FieldEmbedding(FEATURES, 5)
    plain.load_state_dict(fields.state_dict())
    torch.testing.assert_close(torch.cat([found.vectors, found.linear[..., None]], dim=2), plain(BATCH).vectors)


def test_gradients_equal_those_of_one_table_per_vocabulary() -> None:
    fields = FieldEmbedding(FEATURES, 4)
    tables = {name: nn.Parameter(fields.weight[a:b].detach().clone()) for name, (a, b) in fields.rows_of.items()}
    factor = torch.randn(3, 5, 4)
    (fields(BATCH).vectors * factor).sum().backward()
    total = torch.zeros(())
    for row in range(3):
        for place, field in enumerate(FEATURES.sparse):
            total = total + factor[row, place] @ tables[field.table][int(BATCH.sparse[row, place])]
        for place, field in enumerate(FEATURES.sequences):
            ids = [int(index) for index in BATCH.sequences[place][row] if index != IGNORE]
            for index in ids:
                share = 1 / len(ids) if field.pooling == "mean" else 1.0
                total = total + share * factor[row, 3 + place] @ tables[field.table][index]
    total.backward()
    torch.testing.assert_close(fields.weight.grad, torch.cat([grad_of(table) for table in tables.values()]))


def grad_of(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("features", [FEATURES, COMPRESSED])
def test_sparse_gradients_are_the_dense_ones(features: FeatureSpec) -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        fields = FieldEmbedding(features, 4, linear=True, sparse_gradients=sparse)
        vectors = fields(BATCH)
        (vectors.vectors.square().sum() + vectors.linear.sum()).backward()  # pyright: ignore
        assert grad_of(fields.weight).is_sparse == sparse
        found.append(grad_of(fields.weight).to_dense())
    torch.testing.assert_close(*found)


def test_padding_moves_no_weight() -> None:
    fields = FieldEmbedding(FEATURES, 4)
    batch = rows_of([[1, 1, 1]], [[2, IGNORE, IGNORE]], [[IGNORE, IGNORE]])
    fields(batch).vectors.sum().backward()
    touched = grad_of(fields.weight).abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [1, 6, 7]  # user 1, item 1, item 2; neither item 0 nor a tag


def test_quotient_remainder_is_the_product_of_two_vectors() -> None:
    fields = FieldEmbedding(COMPRESSED, 4, linear=True)
    assert fields.rows_of == {"user": (0, 5), "item/quotient": (5, 8), "item/remainder": (8, 11), "tags": (11, 15)}
    found = fields(BATCH)
    assert found.linear is not None
    quotient, remainder = fields.weight[5:8], fields.weight[8:11]

    def item(index: int) -> Tensor:
        return quotient[index // 3] * remainder[index % 3]

    for row, place, index in ((0, 1, 6), (0, 2, 6), (1, 1, 0), (1, 2, 3), (2, 1, 5), (2, 2, 2)):
        torch.testing.assert_close(found.vectors[row, place], item(index)[:4])
        torch.testing.assert_close(found.linear[row, place], item(index)[4])
    torch.testing.assert_close(found.vectors[:, 0], fields.weight[[1, 0, 4], :4])
    torch.testing.assert_close(found.vectors[0, 3], ((2 * item(6) + item(5)) / 3)[:4])  # the history shares the table
    torch.testing.assert_close(found.vectors[2, 3], torch.zeros(4))


def test_quotient_remainder_starts_as_small_as_any_vector() -> None:
    torch.manual_seed(0)
    field = SparseField(name="item", size=1000, table="item", compression="quotient_remainder", buckets=32)
    fields = FieldEmbedding(FeatureSpec(sparse=(field,)), 8)
    vectors = fields(rows_of([[index] for index in range(1000)])).vectors
    assert len({tuple(vector.tolist()) for vector in vectors[:, 0]}) == 1000  # no two ids share one
    assert vectors.std().item() == pytest.approx(0.01, rel=0.2)
    assert fields.weight.numel() == (32 + 32) * 8
    assert fields.memory() == {"item/quotient": 32 * 8 * 4, "item/remainder": 32 * 8 * 4}


def test_one_table_cannot_be_compressed_in_two_ways() -> None:
    last = replace(FEATURES.sparse[2], compression="quotient_remainder", buckets=2)
    with pytest.raises(GenrecError, match=r"table=item.* 3 and to 2 buckets"):
        FieldEmbedding(replace(COMPRESSED, sparse=(*COMPRESSED.sparse[:2], last)), 4)


def test_a_sequence_by_itself() -> None:
    for features in (FEATURES, COMPRESSED):
        fields = FieldEmbedding(features, 4)
        vectors, there = fields.sequence(BATCH, 0)
        assert there.tolist() == [[True] * 3, [True, False, False], [False] * 3]
        pooled = fields(BATCH).vectors[:, 3]
        torch.testing.assert_close((vectors * there[..., None]).sum(1) / torch.tensor([[3.0], [1.0], [1.0]]), pooled)


def test_attention_weighs_by_the_target() -> None:
    history = replace(FEATURES.sequences[0], name="a.history", pooling="attention", target="item")
    fields = FieldEmbedding(replace(FEATURES, sequences=(history,)), 4, linear=True).eval()
    batch = replace(BATCH, sequences=BATCH.sequences[:1])
    vectors, there = fields.sequence(batch, 0)
    found = fields(batch)
    weights = fields.attention["0"](found.vectors[:, 1], vectors[..., :4], there)
    expected = (weights[..., None] * vectors).sum(dim=1)
    assert found.linear is not None
    torch.testing.assert_close(torch.cat([found.vectors[:, 3], found.linear[:, 3:]], dim=1), expected)


def test_a_table_of_sequences_only_and_of_nothing() -> None:
    fields = FieldEmbedding(replace(FEATURES, sparse=()), 4)
    batch = replace(BATCH, sparse=BATCH.sparse[:, :0])
    assert fields(batch).vectors.shape == (3, 2, 4)
    assert FieldEmbedding(FeatureSpec(), 4)(replace(batch, sequences=())).vectors.shape == (3, 0, 4)


def test_memory_is_that_of_the_weights() -> None:
    fields = FieldEmbedding(FEATURES, 4, linear=True)
    assert fields.memory() == {"user": 100, "item": 140, "tags": 80}
    assert sum(fields.memory().values()) == fields.weight.numel() * 4


def test_first_order_is_a_sum_of_weights() -> None:
    first_order = FirstOrder(2)
    nn.init.constant_(first_order.dense, 0.5)
    batch = replace(rows_of([[0], [1]]), dense=torch.tensor([[1.0, 3.0], [0.0, -1.0]]))
    fields = FieldVectors(torch.zeros(2, 2, 4), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert first_order(fields, batch).tolist() == [5.0, 6.5]
    assert FirstOrder(0)(fields, rows_of([[0], [1]])).tolist() == [3.0, 7.0]


def test_dense_vectors_are_scaled_by_their_values() -> None:
    dense = DenseVectors(2, 4)
    batch = replace(rows_of([[0], [1]]), dense=torch.tensor([[1.0, 3.0], [0.0, -1.0]]))
    fields = FieldVectors(torch.randn(2, 1, 4), None)
    first, second = dense.weight
    expected = [torch.stack([first, 3 * second]), torch.stack([0 * first, -second])]
    torch.testing.assert_close(dense(fields, batch), torch.cat([fields.vectors, torch.stack(expected)], dim=1))
    assert DenseVectors(0, 4)(fields, rows_of([[0], [1]])) is fields.vectors
