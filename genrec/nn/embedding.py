"""Vectors for tokens, used both to read tokens and to score them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenEmbedding(nn.Module):
    """A table of token vectors (V, D) and the scores of tokens given a hidden state.

    ``tie=True`` scores with the same table, hidden states scaled by D ** -0.5 (T5); ``tie=False`` with a second one.
    """

    def __init__(self, vocab_size: int, embedding_dim: int, *, tie: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, embedding_dim))
        self.output = None if tie else nn.Parameter(torch.empty(vocab_size, embedding_dim))
        self.reset_parameters(1.0)

    def reset_parameters(self, std: float) -> None:
        nn.init.normal_(self.weight, std=std)
        if self.output is not None:
            nn.init.normal_(self.output, std=self.output.shape[1] ** -0.5)

    @torch.no_grad()
    def start_from(self, centroids: Sequence[Tensor], rows: Sequence[slice]) -> None:
        """Lets tokens that mean similar things start alike: half of the variance of ``rows`` comes from ``centroids``.

        Each of the centroids (K, F) is projected at random to (K, D), which keeps distances, and scaled to the size of
        the random vectors that are there.
        """
        projection = torch.randn(centroids[0].shape[1], self.weight.shape[1])
        for centroid, place in zip(centroids, rows, strict=True):
            projected = centroid @ projection
            spread = projected.std()
            if spread > 0:
                random = self.weight[place]
                self.weight[place] = (random + projected * (random.std() / spread)) * 0.5**0.5

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) token ids -> (..., D)."""
        return functional.embedding(tokens, self.weight)

    def logits(self, hidden: Tensor, first: int = 0, count: int | None = None) -> Tensor:
        """Scores (..., count) of the tokens ``first .. first + count`` (all by default) for hidden states (..., D)."""
        table = self.output
        if table is None:
            table, hidden = self.weight, hidden * hidden.shape[-1] ** -0.5
        return functional.linear(hidden, table[first:] if count is None else table[first : first + count])


def prefix_tokens(tokens: Tensor, bos: int) -> Tensor:
    """Decoder inputs: ``bos`` and all tokens but the last, along the last dimension; same shape as ``tokens``."""
    start = torch.full_like(tokens[..., :1], bos)
    return torch.cat([start, tokens[..., :-1]], dim=-1)


def code_centroids(codes: np.ndarray, codebook_sizes: Sequence[int], vectors: np.ndarray) -> list[Tensor]:
    """For each level (K, F): what each code adds to the mean of the item vectors (N, F) that have it, level by level.

    ``codes`` (N, C). A code that no item has gets zeros.
    """
    residual = np.asarray(vectors, dtype=np.float64)
    residual = residual - residual.mean(axis=0)
    centroids = []
    for level, size in enumerate(codebook_sizes):
        members = codes[:, level]
        sums = np.zeros((size, residual.shape[1]))
        np.add.at(sums, members, residual)
        centroid = sums / np.maximum(np.bincount(members, minlength=size), 1)[:, None]
        residual = residual - centroid[members]
        centroids.append(torch.from_numpy(centroid.astype(np.float32)))
    return centroids


def standardised(vectors: Tensor) -> Tensor:
    """(N, F) with mean 0 and variance 1 in every dimension that varies, 0 in the others."""
    centred = vectors.float() - vectors.float().mean(0)
    spread = centred.square().mean(0).sqrt()
    return centred / torch.where(spread > 1e-6, spread, torch.inf)


def principal_components(vectors: Tensor, count: int) -> Tensor:
    """(N, at most ``count``) the leading principal components of standardised vectors (N, F), of mean variance 1."""
    points = standardised(vectors).double()
    strengths, directions = torch.linalg.eigh(points.T @ points)
    directions = directions[:, strengths > 1e-9 * strengths[-1].clamp(min=1e-30)].flip(1)[:, :count]
    if directions.shape[1] == 0:
        return points.new_zeros(len(points), 0).float()
    strongest = directions.abs().argmax(0)  # eigh leaves signs open
    directions = directions * directions[strongest, torch.arange(directions.shape[1])].sign()
    found = points @ directions
    return (found / found.square().mean().sqrt()).float()
