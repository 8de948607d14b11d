"""What models share when they recommend: the end of a history, and dropout that is off for the moment.

Shapes: B rows, L items of history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def recent(items: Tensor, lengths: Tensor, max_history: int) -> tuple[Tensor, Tensor]:
    """The last ``max_history`` items (B, <= max_history) of each row, filled from the left, and how many they are.

    No wider than the longest row, and at least one place wide.
    """
    kept = lengths.clamp(max=max_history)
    width = max(int(kept.max()), 1) if len(kept) else 1
    if items.shape[1] == 0:
        return items.new_zeros(len(items), 1), kept
    places = (lengths - kept)[:, None] + torch.arange(width, device=items.device)
    return items.gather(1, places.clamp(max=items.shape[1] - 1)), kept


def last_states(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, ...) of ``states`` (B, L, ...) those at the last place of each row; zeros for a row without any."""
    last = states[torch.arange(len(states), device=states.device), (lengths - 1).clamp(min=0)]
    return last.masked_fill((lengths == 0).view(-1, *(1 for _ in last.shape[1:])), 0.0)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, and back in whatever mode it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
