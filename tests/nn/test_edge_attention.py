from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import GATv2Conv

from genrec.nn.edge_attention import Incidence, edge_attention


def edges(seed: int = 0, sources: int = 9, targets: int = 7, count: int = 40) -> torch.Tensor:
    """Sorted by target; target 3 has none."""
    torch.manual_seed(seed)
    index = torch.stack([torch.randint(sources, (count,)), torch.randint(targets, (count,))])
    index = index[:, index[1] != 3]
    return index[:, torch.argsort(index[1], stable=True)]


@pytest.mark.parametrize("with_features", [True, False])
@pytest.mark.parametrize("count", [40, 20_000])
def test_it_is_torch_geometric_s_layer(with_features: bool, count: int) -> None:
    index = edges(count=count)
    layer: Any = GATv2Conv((16, 16), 4, 4, add_self_loops=False, bias=False, edge_dim=1 if with_features else None)
    layer = layer.double()
    features = torch.randn(index.shape[1], 1).double() if with_features else None
    x, y = (torch.randn(rows, 16, dtype=torch.float64, requires_grad=True) for rows in (9, 7))
    expected, (_, weights) = layer((x, y), index, features, return_attention_weights=True)
    found, attention = edge_attention(
        layer.lin_l(x),
        layer.lin_r(y),
        features,
        layer.lin_edge.weight if with_features else None,
        layer.att[0],
        Incidence.of(index, 9, 7),
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(attention, weights)
    assert not found[3].any()
    wanted = [x, y, *(p for p in layer.parameters() if p.requires_grad)]
    direction = torch.randn_like(expected)
    for got, right in zip(
        torch.autograd.grad((found * direction).sum(), wanted, allow_unused=True),
        torch.autograd.grad((expected * direction).sum(), wanted, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(got, right)


def test_dropout_zeroes_edges_and_keeps_the_mean() -> None:
    index = torch.stack([torch.arange(6000) % 9, torch.zeros(6000, dtype=torch.int64)])
    torch.manual_seed(0)
    x, y, attention = torch.randn(9, 8), torch.randn(1, 8), torch.randn(2, 4)
    incidence = Incidence.of(index, 9, 1)
    whole, weights = edge_attention(x, y, None, None, attention, incidence)
    found, kept = edge_attention(x, y, None, None, attention, incidence, dropout=0.4)
    assert (kept == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    torch.testing.assert_close(kept[kept > 0], (weights / 0.6)[kept > 0])
    torch.testing.assert_close(found, whole, rtol=0.2, atol=0.05)


def test_gradients_under_dropout() -> None:
    index = edges()
    x = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    attention = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    incidence = Incidence.of(index, 9, 7)

    def call(*given: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return edge_attention(given[0], given[1], None, None, given[2], incidence, dropout=0.3)[0]

    assert torch.autograd.gradcheck(call, (x, y, attention))
