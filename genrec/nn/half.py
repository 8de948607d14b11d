"""Element-wise steps on 16-bit floats as integers: a CPU widens such floats for every operation, but not integers.

The sign of a float is the sign of the integer with the same bits, so max(x, 0) is the same on both; and a number is
kept or set to zero by a mask of all or no bits. The results are those of the float operations, several times faster.
Other types go the ordinary way. All of these functions overwrite their first argument.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SHORT = (torch.bfloat16, torch.float16)


def is_half(dtype: torch.dtype) -> bool:
    return dtype in _SHORT


def relu_(x: Tensor) -> Tensor:
    if is_half(x.dtype):
        x.view(torch.int16).clamp_min_(0)
        return x
    return x.relu_()


def keep_(x: Tensor, kept: Tensor) -> Tensor:
    """Zero where not ``kept``, which is 0 or -1 (all bits) in int16 for 16-bit floats, else 0 or 1 in the type of x."""
    if is_half(x.dtype):
        x.view(torch.int16).bitwise_and_(kept)
        return x
    return x.mul_(kept)


def pass_where_positive_(gradient: Tensor, x: Tensor) -> Tensor:
    """Zero where ``x``, which is nowhere negative, is zero."""
    if is_half(x.dtype):
        positive = x.view(torch.int16).neg().bitwise_right_shift_(15)  # -n has all bits after the shift, 0 has none
        gradient.view(torch.int16).bitwise_and_(positive)
        return gradient
    return torch.ops.aten.threshold_backward.grad_input(gradient, x, 0, grad_input=gradient)
