"""Diversity worked by hand."""

from __future__ import annotations

import pytest
import torch

from genrec.contracts import IGNORE
from genrec.metrics.diversity import evaluate_diversity

CODES = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 3]])


def test_by_hand() -> None:
    metrics = evaluate_diversity(torch.tensor([[0, 1, 2], [0, 0, IGNORE]]), CODES)
    assert metrics["distinct_items"] == 3 / 5
    assert metrics["coverage"] == 3 / 4
    assert metrics["distinct_codes/level_0"] == 2 / 3  # codes 0 and 1 of 0, 1, 2
    assert metrics["distinct_codes/level_1"] == 2 / 3  # codes 0 and 1 of 0, 1, 3
    # First list: pairs (0, 1) and (0, 2) differ in one level of two, (1, 2) in both. Second: one pair of equal items.
    assert metrics["intra_list_hamming"] == pytest.approx((2 / 3 + 0) / 2)
    assert "intra_list_distance" not in metrics


def test_distance_of_vectors() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 1.0]])
    metrics = evaluate_diversity(torch.tensor([[0, 1, 2], [1, 3, IGNORE]]), CODES, vectors)
    assert metrics["intra_list_distance"] == pytest.approx(((1 + 2 + 1) / 3 + 0) / 2)


def test_lists_of_one_item_have_no_pairs() -> None:
    metrics = evaluate_diversity(torch.tensor([[0], [3]]), CODES)
    assert metrics["distinct_items"] == 1.0 and metrics["intra_list_hamming"] == 0.0
    assert evaluate_diversity(torch.tensor([[IGNORE]]), CODES)["distinct_items"] == 0.0
