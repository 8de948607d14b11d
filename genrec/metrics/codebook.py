"""How well codes represent vectors and how evenly a codebook is used.

Shapes: N items, C levels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def evaluate_reconstruction(reconstructed: Tensor, vectors: Tensor) -> dict[str, float]:
    """Errors of (N, D) against (N, D): ``mse`` per element, ``rmse`` its root, ``sse_per_sample`` the sum over width
    per row, and the mean ``cosine_similarity`` of the rows.
    """
    if reconstructed.shape != vectors.shape or vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"need two equal shapes (N, D) with N >= 1, got {reconstructed.shape} and {vectors.shape}")
    squared = (reconstructed.double() - vectors.double()).square()
    cosine = torch.nn.functional.cosine_similarity(reconstructed.double(), vectors.double(), dim=1)
    return {
        "mse": float(squared.mean()),
        "rmse": float(squared.mean().sqrt()),
        "sse_per_sample": float(squared.sum(1).mean()),
        "cosine_similarity": float(cosine.mean()),
    }


def evaluate_quantization(codes: Tensor, codebook_sizes: Sequence[int]) -> dict[str, float]:
    """Use of the codebooks by ``codes`` (N, C): per level and over all levels.

    ``usage_rate`` is the share of codes used at least once, ``unique_codes`` their number, ``perplexity`` =
    exp(-sum p log p) the number of equally frequent codes that would be as uncertain (overall: its mean over levels).
    Per level the names end in ``/level_0``, ``/level_1`` ...
    """
    if codes.ndim != 2 or codes.shape[1] != len(codebook_sizes) or not len(codes):
        raise ValueError(f"need codes (N, C) and C codebook sizes, got {tuple(codes.shape)} and {list(codebook_sizes)}")
    metrics: dict[str, float] = {}
    used, perplexities = [], []
    for level, size in enumerate(codebook_sizes):
        counts = torch.bincount(codes[:, level].cpu(), minlength=size)
        used.append(int((counts > 0).sum()))
        perplexities.append(perplexity(counts))
        metrics[f"usage_rate/level_{level}"] = used[-1] / size
        metrics[f"unique_codes/level_{level}"] = float(used[-1])
        metrics[f"perplexity/level_{level}"] = perplexities[-1]
    metrics["usage_rate"] = sum(used) / sum(codebook_sizes)
    metrics["unique_codes"] = float(sum(used))
    metrics["perplexity"] = sum(perplexities) / len(perplexities)
    return metrics


def evaluate_collisions(codes: Tensor) -> dict[str, float]:
    """How far ``codes`` (N, C) tell items apart: ``unique_share`` (distinct IDs / items), ``num_colliding_items``
    (items that share their ID) and ``largest_collision_group`` (items under the most crowded ID; 1: all are unique).
    """
    if codes.ndim != 2 or not len(codes):
        raise ValueError(f"need codes (N, C) with N >= 1, got {tuple(codes.shape)}")
    key, sizes = torch.zeros_like(codes[:, 0]), (codes.amax(0) + 1).tolist()
    if codes.dtype == torch.int64 and prod(sizes) < 2**62 and int(codes.min()) >= 0:
        for level, size in enumerate(sizes):  # one number sorts faster than a row
            key = key * size + codes[:, level]
        counts = torch.unique(key, return_counts=True)[1]
    else:
        counts = torch.unique(codes, dim=0, return_counts=True)[1]
    return {
        "unique_share": len(counts) / len(codes),
        "num_colliding_items": float(counts[counts > 1].sum()),
        "largest_collision_group": float(counts.max()),
    }


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of ``counts`` (K,) in nats; 0 log 0 is 0."""
    share = counts.double() / counts.sum()
    return float(torch.special.entr(share).sum().exp())
