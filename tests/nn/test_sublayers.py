from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from genrec.nn.dropout import Dropout
from genrec.nn.sublayers import (
    cross_attention_sublayer,
    feedforward_sublayer,
    replaces_autograd,
    self_attention_sublayer,
)

B, Q, S, H, E, D, F = 2, 3, 4, 2, 3, 6, 5
EPSILON = 1e-6


def _inputs(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (B, Q, D),
        "memory": (B, S, D),
        "norm": (D,),
        "first": (F, D),
        "second": (D, F),
        "query": (H * E, D),
        "key_value": (2 * H * E, D),
        "output": (D, H * E),
        "bias": (1, H, Q, Q),
        "cross_bias": (B, 1, Q, S),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for name, shape in shapes.items()
    }


def _attend(x: Tensor, memory: Tensor, given: dict[str, Tensor], bias: Tensor) -> Tensor:
    """By autograd, one head after the other."""
    key, value = (memory @ part.T for part in given["key_value"].chunk(2))
    heads = []
    for head in range(H):
        part = slice(head * E, head * E + E)
        scores = (x @ given["query"].T)[..., part] @ key[..., part].mT + bias[:, min(head, bias.shape[1] - 1)]
        heads.append(torch.softmax(scores, dim=-1) @ value[..., part])
    return torch.cat(heads, dim=-1) @ given["output"].T


def _feedforward(given: dict[str, Tensor], hidden: Dropout, output: Dropout) -> Tensor:
    names = ("x", "norm", "first", "second")
    return feedforward_sublayer(*(given[name] for name in names), epsilon=EPSILON, hidden=hidden, output=output)


def _self_attention(given: dict[str, Tensor], weights: Dropout, output: Dropout) -> Tensor:
    names = ("x", "norm", "query", "key_value", "output", "bias")
    return self_attention_sublayer(
        *(given[name] for name in names), num_heads=H, epsilon=EPSILON, weights=weights, dropout=output
    )


def _cross_attention(given: dict[str, Tensor], weights: Dropout, output: Dropout) -> Tensor:
    names = ("x", "memory", "norm", "query", "key_value", "output", "cross_bias")
    return cross_attention_sublayer(
        *(given[name] for name in names), num_heads=H, epsilon=EPSILON, weights=weights, dropout=output
    )


def _plain(kind: Callable[..., Tensor], given: dict[str, Tensor]) -> Tensor:
    x = given["x"]
    normed = functional.rms_norm(x, (D,), given["norm"], EPSILON)
    if kind is _feedforward:
        return x + torch.relu(normed @ given["first"].T) @ given["second"].T
    if kind is _self_attention:
        return x + _attend(normed, normed, given, given["bias"])
    return x + _attend(normed, given["memory"], given, given["cross_bias"])


KINDS = [_feedforward, _self_attention, _cross_attention]


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradients_equal_those_of_autograd(kind: Callable[..., Tensor]) -> None:
    given, direction = _inputs(), torch.randn(B, Q, D, dtype=torch.float64)
    none = Dropout(0.0)
    results = []
    for out in (kind(given, none, none), _plain(kind, given)):
        gradients = torch.autograd.grad((out * direction).sum(), list(given.values()), allow_unused=True)
        results.append((out, dict(zip(given, gradients, strict=True))))
    (actual, actual_gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(actual, expected)
    assert sum(gradient is not None for gradient in actual_gradients.values()) >= 4
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_dropout_by_finite_differences(kind: Callable[..., Tensor]) -> None:
    given, dropout = _inputs(), Dropout(0.4)

    def run(*values: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kind(dict(zip(given, values, strict=True)), dropout, dropout)

    assert torch.autograd.gradcheck(run, tuple(given.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_keeps_the_mean(kind: Callable[..., Tensor]) -> None:
    given = {name: value.detach() for name, value in _inputs(torch.float32).items()}
    torch.manual_seed(0)
    expected, dropout = _plain(kind, given), Dropout(0.2)
    mean = torch.stack([kind(given, dropout, dropout) for _ in range(4000)]).mean(0)
    spread = (expected - given["x"]).abs().max().item()
    assert (mean - expected).abs().max().item() < 0.06 * spread
    torch.testing.assert_close(kind(given, dropout.eval(), dropout.eval()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_products_keep_the_sum_exact(kind: Callable[..., Tensor]) -> None:
    given, none = _inputs(torch.float32), Dropout(0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = kind(given, none, none)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert all(value.grad is None or value.grad.dtype == torch.float32 for value in given.values())
    expected = _plain(kind, given)
    assert (out - expected).abs().max() < 0.05 * (expected - given["x"]).abs().max()


def test_used_in_training_on_a_cpu_only() -> None:
    assert replaces_autograd(torch.ones(1))
    with torch.no_grad():
        assert not replaces_autograd(torch.ones(1))
    assert not replaces_autograd(torch.ones(1, device="meta"))
