from __future__ import annotations

import numpy as np
import pytest
import torch

from genrec.nn import embedding
from genrec.nn.embedding import TokenEmbedding, code_centroids, prefix_tokens, principal_components, standardised


def test_tied_scores_are_scaled_dot_products() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(7, 4)
    hidden = torch.randn(3, 4)
    expected = (hidden @ embedding.weight.T) / 2.0  # the square root of the width
    torch.testing.assert_close(embedding.logits(hidden), expected)
    torch.testing.assert_close(embedding.logits(hidden, 2, 3), expected[:, 2:5])


def test_untied_scores_use_a_table_of_their_own() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(7, 4, tie=False)
    hidden = torch.randn(3, 4)
    assert embedding.output is not None
    torch.testing.assert_close(embedding.logits(hidden), hidden @ embedding.output.T)


def test_prefix_tokens_known_answer() -> None:
    assert prefix_tokens(torch.tensor([[5, 6, 7], [8, 9, 10]]), 1).tolist() == [[1, 5, 6], [1, 8, 9]]


def test_code_centroids_known_answer() -> None:
    codes = np.array([[0, 0], [0, 1], [2, 0]])
    vectors = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])  # mean (2, 1)
    first, second = code_centroids(codes, (3, 2), vectors)
    assert first.tolist() == [[0.0, -1.0], [0.0, 0.0], [0.0, 2.0]]  # code 1 names no item
    assert second.tolist() == [[-0.5, 0.0], [1.0, 0.0]]  # of (-1, 0) and (0, 0); of (1, 0)


def test_tokens_of_similar_items_start_alike() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(2 + 4, 512)
    before = embedding.weight.detach().clone()
    centroids = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    embedding.start_from([centroids], [slice(2, 6)])
    cosine = torch.nn.functional.cosine_similarity(embedding.weight[2], embedding.weight[3:], dim=-1)
    assert cosine[0] > 0.3 and cosine[1] < -0.3 and abs(cosine[2]) < 0.2
    assert torch.equal(embedding.weight[:2], before[:2])
    assert 0.9 < float(embedding.weight[2:].detach().std()) < 1.1


def test_principal_components_equal_those_of_a_decomposition():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 6, generator=generator) * torch.tensor([1.0, 5, 2, 1, 9, 1])
    vectors[:, 3] = 7.0  # constant: tells nothing, and must not divide by zero
    found = principal_components(vectors, 4)
    scaled = torch.cat([vectors[:, :3], vectors[:, 4:]], dim=1)
    scaled = (scaled - scaled.mean(0)) / scaled.std(0, unbiased=False)
    left, strengths, _ = torch.linalg.svd(scaled, full_matrices=False)
    expected = (left * strengths)[:, :4]
    expected = expected / expected.square().mean().sqrt()
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-4)
    assert principal_components(vectors, 99).shape == (40, 5)
    assert principal_components(torch.ones(5, 3), 2).shape == (5, 0)


def test_standardised_leaves_constants_at_zero():
    vectors = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    assert standardised(vectors).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_code_centroids_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(100, 5)).astype(np.float32), rng.integers(4, size=(100, 3))
    residual = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    expected = []
    for level in range(3):
        sums = np.zeros((4, 5))
        np.add.at(sums, codes[:, level], residual)
        centroid = sums / np.bincount(codes[:, level], minlength=4)[:, None]
        residual = residual - centroid[codes[:, level]]
        expected.append(centroid.astype(np.float32))
    for found, wanted in zip(code_centroids(codes, (4, 4, 4), vectors), expected, strict=True):
        assert np.array_equal(found.numpy(), wanted), "small catalogues keep the very digits they had"
    monkeypatch.setattr(embedding, "_ITEMS_AT_ONCE", 7)
    for found, wanted in zip(code_centroids(codes, (4, 4, 4), vectors), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_principal_components_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0)
    whole = principal_components(vectors, 4)
    monkeypatch.setattr(embedding, "_ITEMS_AT_ONCE", 7)
    torch.testing.assert_close(principal_components(vectors, 4), whole, atol=1e-5, rtol=1e-4)
