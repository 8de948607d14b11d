"""Networks side by side as batched products: the experts, gates and towers of multi-task models.

B rows, G groups, N and M widths, E experts, K gates, T tasks, D width of an expert's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional

from genrec.nn.dropout import Dropout


class GroupedLinear(nn.Module):
    """G linear layers as one product, each for its own inputs: (B, G, N) -> (B, G, M).

    Weights start as in ``MLP``: normal with variance ``gain`` / N, where 2 keeps the variance through a ReLU (He et al.
    2015).
    """

    def __init__(
        self, num_groups: int, input_dim: int, output_dim: int, *, gain: float = 2.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = Parameter(torch.empty(num_groups, output_dim, input_dim))  # (G, M, N)
        nn.init.normal_(self.weight, std=(gain / input_dim) ** 0.5)
        # A vector, as weight decay spares those.
        self.bias = Parameter(torch.zeros(num_groups * output_dim)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        weight, columns = self.weight.transpose(1, 2), inputs.transpose(0, 1)
        if self.bias is None:
            return torch.bmm(columns, weight).transpose(0, 1)
        return torch.baddbmm(self.bias.view(len(weight), 1, -1), columns, weight).transpose(0, 1)


class Experts(nn.Module):
    """E multi-layer perceptrons of one shape, with ReLU and dropout after every layer: (B, G, N) -> (B, E, D).

    Group g of the inputs goes to the experts g E / G up to (g + 1) E / G; with one group all experts read the same, and
    their first layer is a single wide one.
    """

    def __init__(
        self, num_experts: int, input_dim: int, dims: Sequence[int], *, num_groups: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        assert num_experts % num_groups == 0
        self.num_experts = num_experts
        first = GroupedLinear(num_groups, input_dim, num_experts // num_groups * dims[0])
        others = [GroupedLinear(num_experts, width, following) for width, following in pairwise(dims)]
        self.layers = nn.ModuleList([first, *others])
        self.dropout = Dropout(dropout)

    @property
    def last_weight(self) -> Parameter:
        """The weight of the last layer, of all experts in one."""
        weight = self.layers[-1].weight
        assert isinstance(weight, Parameter)
        return weight

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for layer in self.layers:
            x = _regrouped(layer(x), self.num_experts)
            x = self.dropout(functional.relu(x))
        return x


class Gates(nn.Module):
    """K softmax gates over E experts, linear and without bias (Ma et al., KDD 2018): (B, G, N) -> (B, K, E).

    With one group all gates read the same, otherwise gate k reads group k.
    """

    def __init__(self, num_gates: int, num_experts: int, input_dim: int, *, num_groups: int = 1) -> None:
        super().__init__()
        assert num_groups in (1, num_gates)
        self.num_gates = num_gates
        self.linear = GroupedLinear(num_groups, input_dim, num_gates // num_groups * num_experts, gain=1.0, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.softmax(_regrouped(self.linear(inputs), self.num_gates), dim=-1)


class Towers(nn.Module):
    """A network with one output for each task, each on its own input: (B, T, N) -> (B, T)."""

    def __init__(self, num_tasks: int, input_dim: int, dims: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = (
            Experts(num_tasks, input_dim, dims, num_groups=num_tasks, dropout=dropout) if dims else nn.Identity()
        )
        self.output = GroupedLinear(num_tasks, dims[-1] if dims else input_dim, 1, gain=1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(self.hidden(inputs)).squeeze(-1)


def mixed(weights: Tensor, experts: Tensor) -> Tensor:
    """Sums of what experts say, weighted by gates: (..., E) and (..., E, D) -> (..., D)."""
    return (weights.unsqueeze(-1) * experts).sum(dim=-2)


def _regrouped(x: Tensor, num_groups: int) -> Tensor:
    """(B, G, M) with the groups cut into ``num_groups`` in all."""
    return x.reshape(len(x), num_groups, x.shape[1] * x.shape[2] // num_groups)
