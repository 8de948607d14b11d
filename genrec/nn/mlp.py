"""A plain multi-layer perceptron, and what may stand between its layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.dropout import Dropout
from genrec.nn.several import num_processes, summed


class MLP(nn.Module):
    """Linear layers with an activation and dropout between them; (..., ``input_dim``) -> (..., ``output_dim``).

    Nothing follows the last layer, so that the output can take any sign and scale. Weights start so that the variance
    of the inputs is kept from layer to layer (He et al. 2015); torch's default would divide it by six per layer.
    ``batch_norm`` standardises hidden units over the batch before their activation, "relu" or "dice" (``Dice``).
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        output_dim: int,
        *,
        dropout: float = 0.0,
        activation: Literal["relu", "dice"] = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [input_dim, *hidden_dims]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers.append(nn.Linear(width, following))
            if batch_norm:
                layers.append(BatchNorm(following))
            layers += [Dice(following) if activation == "dice" else nn.ReLU(inplace=True), Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-1], output_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew."""
        for layer in self.hidden:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.kaiming_normal_(self.output.weight, nonlinearity="linear")
        nn.init.zeros_(self.output.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(self.hidden(inputs))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all but the last dimension of (..., width).

    A single row has no variance to speak of: the moving averages serve, in training too, and stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        if self.training and num_processes() > 1:
            return self._of_whole_batch(rows).reshape(input.shape)
        if self.training and len(rows) < 2:
            rows = functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        else:
            rows = super().forward(rows)
        return rows.reshape(input.shape)

    def _of_whole_batch(self, rows: Tensor) -> Tensor:
        """Mean and variance of the rows of all processes, each of which has a share of the batch."""
        exact = rows.float()
        count = summed(exact.new_tensor(float(len(rows))))
        mean = summed(exact.sum(dim=0)) / count
        variance = summed((exact - mean).square().sum(dim=0)) / count
        if count < 2:
            assert self.running_mean is not None and self.running_var is not None
            mean, variance = self.running_mean, self.running_var
        elif self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
        normal = ((exact - mean) * (variance + self.eps).rsqrt()).to(rows.dtype)
        return normal if self.weight is None else normal * self.weight + self.bias


class Dice(nn.Module):
    """p x + (1 - p) alpha x with p the sigmoid of x standardised over the batch (Zhou et al., KDD 2018, equation 3).

    ``x`` (..., ``width``); mean and variance are those of each neuron, moving averages of them in evaluation; ``alpha``
    is learned for each neuron from 0, ``eps`` is the paper's 1e-8.
    """

    def __init__(self, width: int, *, eps: float = 1e-8) -> None:
        super().__init__()
        self.norm = BatchNorm(width, eps=eps, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(self.norm(x))
        return x * (share + (1.0 - share) * self.alpha)
