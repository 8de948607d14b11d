"""Dropout whose random bits are cheap on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LEVELS = 1 << 16  # resolution of the drop probability


class Dropout(nn.Module):
    """Inverted dropout: in training each entry is zero with probability ``p``, the rest is scaled by ``1 / (1 - p)``.

    PyTorch draws a CPU mask one number after another (about 0.1 billion per second on any number of threads). Here one
    number is drawn from PyTorch's generator, so that seeding and resuming work as usual, and it seeds a fast generator
    that fills the mask with 16 bits per entry; ``p`` is rounded to a multiple of 1 / 65,536. A GPU uses PyTorch's own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
        self.p = p

    @property
    def active(self) -> bool:
        return self.training and self.p > 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        return x * self._mask(x)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + dropout(x)`` in one pass."""
        if not self.active or x.device.type != "cpu":
            return residual + self(x)
        return torch.addcmul(residual, x, self._mask(x))

    def relu(self, x: Tensor) -> tuple[Tensor, float]:
        """A tensor and a factor whose product is ``dropout(relu(x))``; overwrites ``x``.

        The factor is apart because it costs less after the narrowing product that follows in a feed-forward layer.
        """
        if not self.active or x.device.type != "cpu":
            return self(x.relu_()), 1.0
        dropped = _ReluDropout.apply(x, ~keep_mask(x.shape, self.p))
        return dropped, _scale(self.p)  # pyright: ignore[reportReturnType]

    def _mask(self, x: Tensor) -> Tensor:
        return torch.where(keep_mask(x.shape, self.p), _scale(self.p), 0.0).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ReluDropout(torch.autograd.Function):
    """Zero where negative or dropped, in place; the result itself says where the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor) -> Tensor:
        x.relu_().masked_fill_(dropped, 0.0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, out, 0), None


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """A boolean CPU tensor of ``shape``: False with probability ``p``."""
    count = shape.numel()
    seed = int(torch.randint(2**62, ()))
    words = np.random.SFC64(seed).random_raw(-(-count // 4))
    bits = torch.from_numpy(words.view(np.int16)[:count]).view(shape)
    return bits >= _threshold(p) - _LEVELS // 2


def _threshold(p: float) -> int:
    return round(p * _LEVELS)


def _scale(p: float) -> float:
    return _LEVELS / (_LEVELS - _threshold(p))
