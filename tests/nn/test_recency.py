from __future__ import annotations

import torch

from genrec.nn.recency import recency_weights


def test_known_weights() -> None:
    weights = recency_weights(torch.tensor([3, 1, 0]), 4, decay=0.5, num_recent=10)
    assert weights.tolist() == [[0.25, 0.5, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_only_the_most_recent_items_count() -> None:
    assert recency_weights(torch.tensor([4]), 4, decay=1.0, num_recent=2).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_no_decay_at_zero_leaves_the_last_item() -> None:
    assert recency_weights(torch.tensor([3]), 3, decay=0.0, num_recent=3).tolist() == [[0.0, 0.0, 1.0]]
