from __future__ import annotations

import pytest
import torch

from genrec.nn.dropout import Dropout, mask_slice


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_share_dropped_and_mean_kept(p: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1000, 200))
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], abs=1e-3)


def test_masks_of_rows_columns_and_calls_are_unrelated() -> None:
    torch.manual_seed(0)
    first, second = (mask_slice(torch.Size([400, 400]), 0.5, torch.float64, 1.0) - 0.5 for _ in range(2))
    shifted = (first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first[:, 4:], first[:, :-4])
    for a, b in ((first, second), *shifted):
        assert abs((a * b).mean().item() * 4) < 0.015  # six standard errors


def test_seed_decides_the_mask() -> None:
    dropout, x = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(1)
    first = dropout(x)
    state = torch.get_rng_state()
    second = dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), second)
    assert not torch.equal(first, second)


def test_gradient_passes_where_kept() -> None:
    x = torch.ones(50, 4, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, out.detach())


def test_identity_in_evaluation_and_at_zero() -> None:
    x = torch.randn(3, 3)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_impossible_probability_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="dropout must be"):
        Dropout(p)


def test_add_is_residual_plus_dropout() -> None:
    residual, x = torch.randn(40, 8), torch.randn(40, 8, requires_grad=True)
    dropout = Dropout(0.3)
    torch.manual_seed(4)
    dropped = dropout(x)
    torch.manual_seed(4)
    torch.testing.assert_close(dropout.add(residual, x), residual + dropped)
    assert torch.equal(dropout.eval().add(residual, x), residual + x)


def test_relu_and_factor_are_dropout_of_relu() -> None:
    dropout, base = Dropout(0.3), torch.randn(60, 8)
    values, gradients = [], []
    for fused in (True, False):
        torch.manual_seed(4)
        x = base.clone().requires_grad_()
        inner = x * 1.0  # relu overwrites what it is given, which no leaf allows
        hidden, scale = dropout.relu(inner) if fused else (dropout(torch.relu(inner)), 1.0)
        out = hidden * scale
        (out * torch.arange(8.0)).sum().backward()
        values.append(out.detach())
        gradients.append(x.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    assert 0.55 < (values[0] == 0).float().mean().item() < 0.75  # half by relu, 0.3 of the rest


def test_a_mask_larger_than_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.nn.dropout._LARGEST_SLICE", 1000)
    mask = mask_slice(torch.Size([70, 50]), 0.25, torch.float32, 2.0)
    assert mask.shape == (70, 50)
    assert mask.unique().tolist() == [0.0, 2.0]
    assert (mask == 0).double().mean().item() == pytest.approx(0.25, abs=0.04)


def test_a_mask_of_nothing() -> None:
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_half_precision_masks_are_exact() -> None:
    dropout = Dropout(0.1)
    assert dropout.kept(torch.Size([1000]), torch.bfloat16).unique().tolist() == [-1, 0]  # all bits or none
    assert dropout.scale == pytest.approx(1 / 0.9, rel=1e-4)
    assert dropout.eval().scale == 1.0
