"""Dropout whose random bits are cheap on a CPU."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from genrec.nn.half import is_half, keep_, pass_where_positive_, relu_

_LEVELS = 1 << 16  # resolution of the drop probability
_BANK_SIZE = 1 << 24  # entries drawn beforehand
_LARGEST_SLICE = _BANK_SIZE // 2  # so that there are as many places at which a slice may begin


class Dropout(nn.Module):
    """Inverted dropout: in training each entry is zero with probability ``p``, the rest is scaled by ``1 / (1 - p)``.

    PyTorch draws a CPU mask one number after another (about 0.1 billion per second on any number of threads). Here the
    bits are drawn once per process, always the same, and a mask is the part of them that begins at a place drawn from
    PyTorch's generator, so that seeding and resuming work as usual. ``p`` is rounded to a multiple of 1 / 65,536. A GPU
    uses PyTorch's own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
        self.p = p

    @property
    def active(self) -> bool:
        return self.training and self.p > 0.0

    @property
    def scale(self) -> float:
        """What kept entries are multiplied by."""
        return _LEVELS / (_LEVELS - round(self.p * _LEVELS)) if self.active else 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        return x * self.mask(x.shape, x.dtype)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + dropout(x)`` in one pass."""
        if not self.active or x.device.type != "cpu":
            return residual + self(x)
        return torch.addcmul(residual, x, self.mask(x.shape, x.dtype))

    def relu(self, x: Tensor) -> tuple[Tensor, float]:
        """A tensor and a factor whose product is ``dropout(relu(x))``; overwrites ``x``.

        The factor is apart because it costs less after the narrowing product that follows in a feed-forward layer.
        """
        if not self.active or x.device.type != "cpu":
            return self(x.relu_()), 1.0
        return _ReluDropout.apply(x, self.kept(x.shape, x.dtype)), self.scale  # pyright: ignore[reportReturnType]

    def mask(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """What a CPU tensor is multiplied by: 0 or ``scale``. Not to be written to."""
        return mask_slice(shape, self.p, dtype, self.scale)

    def kept(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Which entries of a CPU tensor are kept, as ``nn.half.keep_`` wants it. Not to be written to."""
        return mask_slice(shape, self.p, torch.int16, -1) if is_half(dtype) else mask_slice(shape, self.p, dtype, 1)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ReluDropout(torch.autograd.Function):
    """Zero where negative or dropped, in place; the result itself says where the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor) -> Tensor:
        keep_(relu_(x), kept)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return pass_where_positive_(gradient.clone(), out), None


def mask_slice(shape: torch.Size, p: float, dtype: torch.dtype, value: float) -> Tensor:
    """A CPU tensor of ``shape`` that is 0 with probability ``p``, else ``value``; part of the bank, so do not write."""
    bank, left = _bank(p, dtype, value), shape.numel()
    parts = []
    while left > 0 or not parts:
        count = min(left, _LARGEST_SLICE)
        begin = int(torch.randint(_BANK_SIZE - count + 1, ()))
        parts.append(bank[begin : begin + count])
        left -= count
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(shape)


@functools.lru_cache(maxsize=8)
def _bank(p: float, dtype: torch.dtype, value: float) -> Tensor:
    words = np.random.SFC64(0).random_raw(_BANK_SIZE // 4)  # 16 bits per entry
    dropped = torch.from_numpy(words.view(np.int16)) < round(p * _LEVELS) - _LEVELS // 2
    return torch.where(dropped, 0.0, value).to(dtype)
