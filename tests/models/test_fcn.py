from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import DataSpec, GenrecError
from genrec.models.fcn import FCN
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_spec


class TestFCN(RowContract):
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return FCN(spec, embedding_dim=4)


class TestFCNOfValues(RowContract):
    TASKS = ("rating",)

    def build(self, spec: DataSpec) -> nn.Module:
        return FCN(spec, embedding_dim=4, embedding_l2=1e-3)


def naive_cross(layer: nn.Module, base: Tensor, x: Tensor) -> Tensor:
    crosses: Tensor = layer.linear.weight @ x  # pyright: ignore
    normed = (crosses - crosses.mean()) / (crosses.var(unbiased=False) + 1e-5).sqrt()
    mask = (normed * layer.norm.weight + layer.norm.bias).clamp(min=0)  # pyright: ignore
    both = [*crosses, *(crosses * mask)]
    return torch.stack([base[i] * (both[i] + layer.bias[i]) + x[i] for i in range(len(x))])  # pyright: ignore


def naive_logits(model: FCN, batch, row: int) -> tuple[Tensor, Tensor]:
    vectors = naive_fields(model.fields, batch, row)
    vectors += [value * vector for value, vector in zip(batch.dense[row], model.dense_vectors.weight, strict=True)]
    half = model.fields.embedding_dim // 2
    first = torch.cat([vector[:half] for vector in vectors] + [vector[half:] for vector in vectors])
    linear = exponential = first
    for layer in model.linear_crosses:
        linear = naive_cross(layer, first, linear)
    for layer in model.exponential_crosses:
        exponential = naive_cross(layer, exponential, exponential)
    return model.bias + model.linear_output(linear), model.bias + model.exponential_output(exponential)


def small() -> FCN:
    torch.manual_seed(0)
    return rough(FCN(row_spec(), embedding_dim=2, num_linear_layers=2, num_exponential_layers=2))


def test_is_the_mean_of_both_networks() -> None:
    model, batch = small(), row_batch(5)
    found = model.predict(batch)["click"]
    for row in range(5):
        linear, exponential = naive_logits(model, batch, row)
        assert found[row].item() == pytest.approx(torch.sigmoid((linear + exponential) / 2).item(), rel=1e-4)


def test_tri_bce_supervises_the_worse_network() -> None:
    model, batch = small(), row_batch(30)
    both = [naive_logits(model, batch, row) for row in range(30)]
    linear, exponential = (torch.stack([pair[k] for pair in both])[:, 0] for k in (0, 1))
    labels = batch.labels[:, 0]
    loss, shallow, deep = (
        functional.binary_cross_entropy_with_logits(output, labels)
        for output in ((linear + exponential) / 2, linear, exponential)
    )
    expected = loss + max(shallow - loss, 0) * shallow + max(deep - loss, 0) * deep
    torch.testing.assert_close(model.loss(batch).total, expected, rtol=1e-4, atol=1e-5)
    assert max(shallow, deep) > loss


def test_the_weights_of_tri_bce_are_numbers() -> None:
    """Their gradient would reward a larger loss of the mean: L_d (L_d - L) falls when L grows."""
    model, batch = small(), row_batch(30)
    model.loss(batch).total.backward()
    found = model.bias.grad
    fields, labels = model.fields(batch), batch.labels[:, 0]
    linear, exponential = (model.bias + logits for logits in model._both(fields, batch))
    task = model.tasks[0]
    loss, *single = (
        model.loss_of(task, output[:, 0], labels) for output in ((linear + exponential) / 2, linear, exponential)
    )
    (expected,) = torch.autograd.grad(
        loss + sum(max((part - loss).item(), 0.0) * part for part in single), [model.bias]
    )
    torch.testing.assert_close(found, expected)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(GenrecError, match="even number"):
        FCN(row_spec(), embedding_dim=3)
