"""How much each item of a history counts in a query that prefers recent ones."""

from __future__ import annotations

import torch
from torch import Tensor


def recency_weights(lengths: Tensor, width: int, *, decay: float, num_recent: int) -> Tensor:
    """(B, width) weights of histories filled from the left: 1 for the last item, times ``decay`` for each item after.

    Zero at places without an item and beyond the last ``num_recent`` items. ``decay`` 0 leaves the last item only.
    """
    age = lengths[:, None] - 1 - torch.arange(width, device=lengths.device)
    weights = torch.pow(torch.full_like(age, decay, dtype=torch.float32), age.clamp(min=0))
    return torch.where((age >= 0) & (age < num_recent), weights, 0.0)
