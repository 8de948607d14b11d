"""Recommending for a large batch a few rows at a time, those with histories of like length together.

On a CPU the hidden states of thousands of beams leave the processor's cache, and a batch is as wide as its longest row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from genrec.contracts import HistoryBatch, Recommendations

MAX_BEAMS = 1024  # of all rows of a slice; between 640 and 2,560 the time of a user hardly changes


def in_slices(
    recommend: Callable[[HistoryBatch], Recommendations], batch: HistoryBatch, num_beams: int
) -> Recommendations:
    """What ``recommend`` returns for the whole batch, put together from slices of at most ``MAX_BEAMS`` beams.

    A batch on another device than a CPU stays whole.
    """
    count = len(batch.lengths)
    pieces = -(-count * num_beams // MAX_BEAMS)
    if batch.items.device.type != "cpu" or pieces <= 1 or count <= 1:
        return recommend(batch)
    order = batch.lengths.argsort(stable=True)
    found = [recommend(_rows(batch, rows)) for rows in order.tensor_split(min(pieces, count))]
    back = order.argsort()
    items, scores = (torch.cat([getattr(part, name) for part in found])[back] for name in ("items", "scores"))
    return Recommendations(items, scores)


def _rows(batch: HistoryBatch, rows: torch.Tensor) -> HistoryBatch:
    seen = None if batch.seen is None else batch.seen[rows]
    return HistoryBatch(batch.users[rows], batch.items[rows], batch.lengths[rows], seen)
