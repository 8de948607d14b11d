"""Codebook metrics worked by hand."""

import math

import pytest
import torch

from genrec.metrics.codebook import evaluate_collisions, evaluate_quantization, evaluate_reconstruction, perplexity


def test_reconstruction_by_hand() -> None:
    vectors = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    rebuilt = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    metrics = evaluate_reconstruction(rebuilt, vectors)
    assert metrics["mse"] == pytest.approx((16 + 1 + 1) / 4)  # per element
    assert metrics["rmse"] == pytest.approx(math.sqrt(18 / 4))
    assert metrics["sse_per_sample"] == pytest.approx((16 + 2) / 2)  # per item
    assert metrics["cosine_similarity"] == pytest.approx((3 / 5 + 0) / 2)


def test_a_perfect_reconstruction_has_no_error() -> None:
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    metrics = evaluate_reconstruction(vectors, vectors)
    assert metrics["mse"] == 0 and metrics["cosine_similarity"] == pytest.approx(1)


def test_quantization_by_hand() -> None:
    codes = torch.tensor([[0, 1], [0, 2], [1, 1], [1, 2]])
    metrics = evaluate_quantization(codes, (2, 4))
    assert metrics["usage_rate/level_0"] == 1 and metrics["usage_rate/level_1"] == 2 / 4
    assert metrics["usage_rate"] == 4 / 6 and metrics["unique_codes"] == 4
    assert metrics["perplexity/level_0"] == pytest.approx(2) and metrics["perplexity"] == pytest.approx(2)


def test_perplexity_is_the_exponential_of_the_entropy_in_nats() -> None:
    # p = 1/2, 1/4, 1/4: entropy = 1.5 bits, so 2^1.5
    assert perplexity(torch.tensor([2, 1, 1, 0])) == pytest.approx(2**1.5)
    assert perplexity(torch.tensor([7, 0])) == pytest.approx(1)


def test_collisions_by_hand() -> None:
    codes = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [0, 0], [1, 0]])
    metrics = evaluate_collisions(codes)
    assert metrics == {"unique_share": 3 / 6, "num_colliding_items": 5.0, "largest_collision_group": 3.0}


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        evaluate_reconstruction(torch.zeros(2, 3), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="codebook sizes"):
        evaluate_quantization(torch.zeros(2, 3, dtype=torch.long), (4, 4))
    with pytest.raises(ValueError, match="N >= 1"):
        evaluate_collisions(torch.zeros(0, 3, dtype=torch.long))
