"""Explicit interactions of fields."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import RowBatch
from genrec.nn.crosses import CrossLayer, FactorizationMachine, FieldAttention, LowRankCrossLayer, MaskedCrossLayer
from genrec.nn.fields import FieldVectors

FIRST, X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


def batch_of(dense: Tensor) -> RowBatch:
    return RowBatch(dense, torch.zeros(len(dense), 0, dtype=torch.int32), (), torch.zeros(len(dense), 1))


def rough(layer: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    for weight in layer.parameters():
        nn.init.normal_(weight)
    return layer


@pytest.mark.parametrize("num_dense", [0, 2])
def test_factorization_machine_is_a_sum_over_pairs(num_dense: int) -> None:
    machine = FactorizationMachine(num_dense, 3)
    rough(machine)
    batch = batch_of(torch.randn(5, num_dense))
    fields = FieldVectors(torch.randn(5, 4, 3), torch.randn(5, 4))
    found = machine(fields, batch)
    assert fields.linear is not None
    for row in range(5):
        vectors = [*fields.vectors[row]]
        expected = fields.linear[row].sum()
        for place, value in enumerate(batch.dense[row]):
            vectors.append(value * machine.dense[place])
            expected = expected + value * machine.first_order.dense[place]
        for i in range(len(vectors)):
            for j in range(i):
                expected = expected + vectors[i] @ vectors[j]
        torch.testing.assert_close(found[row], expected)


def test_factorization_machine_of_one_field_has_no_pair() -> None:
    fields = FieldVectors(torch.randn(5, 1, 3), torch.zeros(5, 1))
    torch.testing.assert_close(FactorizationMachine(0, 3)(fields, batch_of(torch.zeros(5, 0))), torch.zeros(5))


def test_factorization_machine_is_exact_under_autocast() -> None:
    """A sum of many like vectors: squares near 10,000 differ by 1, which bfloat16 cannot tell from 0."""
    machine = FactorizationMachine(0, 4)
    fields = FieldVectors(torch.full((2, 50, 4), 1.0), torch.zeros(2, 50))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert machine(fields, batch_of(torch.zeros(2, 0))).tolist() == [50 * 49 / 2 * 4] * 2


def test_cross_layer_has_its_bias_inside_the_product() -> None:
    layer = CrossLayer(6)
    rough(layer)
    found = layer(FIRST, X)
    for row in range(5):
        for i in range(6):
            inner = sum(layer.linear.weight[i, j] * X[row, j] for j in range(6)) + layer.linear.bias[i]
            torch.testing.assert_close(found[row, i], FIRST[row, i] * inner + X[row, i])
    torch.testing.assert_close(layer(torch.zeros_like(X), X), X)  # a bias outside would show here


@pytest.mark.parametrize("num_experts", [1, 3])
def test_low_rank_cross_layer_mixes_its_experts(num_experts: int) -> None:
    layer = LowRankCrossLayer(6, 2, num_experts)
    rough(layer)
    found = layer(FIRST, X)
    for row in range(5):
        gates = torch.ones(1) if layer.gate is None else torch.softmax(layer.gate(X[row]), dim=0)
        expected = X[row]
        for expert, gate in enumerate(gates):
            part = slice(2 * expert, 2 * expert + 2)
            hidden = torch.tanh(layer.core[expert] @ torch.tanh(layer.down.weight[part] @ X[row]))
            expected = expected + gate * FIRST[row] * (layer.up.weight[:, part] @ hidden + layer.up.bias)
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("base", [FIRST, X])
def test_masked_cross_layer_drops_half_of_the_low_crosses(base: Tensor) -> None:
    layer = MaskedCrossLayer(6)
    rough(layer)
    found = layer(base, X)
    for row in range(5):
        crosses = layer.linear.weight @ X[row]
        normed = (crosses - crosses.mean()) / (crosses.var(unbiased=False) + layer.norm.eps).sqrt()
        mask = (layer.norm.weight * normed + layer.norm.bias).clamp(min=0)
        both = torch.cat([crosses, crosses * mask]) + layer.bias
        torch.testing.assert_close(found[row], base[row] * both + X[row])
    assert sum(weight.numel() for weight in layer.linear.parameters()) == 6 * 3  # half of a cross layer's


def test_field_attention_is_multi_head_attention_without_a_scale() -> None:
    layer = FieldAttention(4, 2, 3)
    rough(layer)
    fields = torch.randn(2, 5, 4)
    found = layer(fields)
    assert found.shape == (2, 5, 6)
    query, key, value, residual = layer.projections.weight.chunk(4)
    for row in range(2):
        for field in range(5):
            heads = []
            for head in range(3):
                part = slice(2 * head, 2 * head + 2)
                scores = torch.stack(
                    [(query[part] @ fields[row, field]) @ (key[part] @ other) for other in fields[row]]
                )
                shares = torch.softmax(scores, dim=0)
                heads.append(
                    sum(share * (value[part] @ other) for share, other in zip(shares, fields[row], strict=True))
                )
            expected = torch.relu(torch.cat(heads) + residual @ fields[row, field])  # pyright: ignore
            torch.testing.assert_close(found[row, field], expected, rtol=1e-4, atol=1e-5)


def test_field_attention_does_not_depend_on_the_order_of_fields() -> None:
    layer = FieldAttention(4, 2, 3)
    fields, order = torch.randn(2, 5, 4), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(fields[:, order]), layer(fields)[:, order])


def test_attention_dropout_acts_in_training_only() -> None:
    layer = FieldAttention(4, 2, 3, dropout=0.5)
    rough(layer)
    fields = torch.randn(2, 5, 4)
    assert not torch.equal(layer(fields), layer(fields))
    layer.eval()
    assert torch.equal(layer(fields), layer(fields))


def test_machines_read_their_own_batch_only() -> None:
    machine = FactorizationMachine(2, 3)
    rough(machine)
    batch = batch_of(torch.randn(5, 2))
    fields = FieldVectors(torch.randn(5, 4, 3), torch.randn(5, 4))
    assert fields.linear is not None
    part = FieldVectors(fields.vectors[:2], fields.linear[:2])
    torch.testing.assert_close(
        machine(fields, batch)[:2], machine(part, replace(batch, dense=batch.dense[:2], labels=batch.labels[:2]))
    )
