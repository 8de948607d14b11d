"""Vectors for tokens, used both to read tokens and to score them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_ITEMS_AT_ONCE = 1 << 15


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
    from scipy.sparse import csr_array

    parts = [slice(begin, begin + _ITEMS_AT_ONCE) for begin in range(0, len(codes), _ITEMS_AT_ONCE)]
    mean = sum(np.asarray(vectors[part], dtype=np.float64).sum(axis=0) for part in parts) / len(codes)
    centroids: list[np.ndarray] = []
    for level, size in enumerate(codebook_sizes):
        sums = np.zeros((size, vectors.shape[1]))
        for part in parts:  # in float64, so a few items at a time
            residual = np.asarray(vectors[part], dtype=np.float64) - mean
            for above, centroid in enumerate(centroids):
                residual -= centroid[codes[part, above]]
            places = (codes[part, level], np.arange(len(residual)))
            sums += csr_array((np.ones(len(residual)), places), shape=(size, len(residual))) @ residual
        counts = np.bincount(codes[:, level], minlength=size)
        centroids.append(sums / np.maximum(counts, 1)[:, None])
    return [torch.from_numpy(centroid.astype(np.float32)) for centroid in centroids]


def standardised(vectors: Tensor) -> Tensor:
    """(N, F) with mean 0 and variance 1 in every dimension that varies, 0 in the others."""
    centred = vectors.float() - vectors.float().mean(0)
    spread = centred.square().mean(0).sqrt()
    return centred / torch.where(spread > 1e-6, spread, torch.inf)


def principal_components(vectors: Tensor, count: int) -> Tensor:
    """(N, at most ``count``) the leading principal components of standardised vectors (N, F), of mean variance 1."""
    points = standardised(vectors)
    parts = points.split(_ITEMS_AT_ONCE)  # in float64 a few at a time
    strengths, directions = torch.linalg.eigh(sum(part.double().T @ part.double() for part in parts))
    directions = directions[:, strengths > 1e-9 * strengths[-1].clamp(min=1e-30)].flip(1)[:, :count]
    if directions.shape[1] == 0:
        return points.new_zeros(len(points), 0)
    strongest = directions.abs().argmax(0)  # eigh leaves signs open
    directions = directions * directions[strongest, torch.arange(directions.shape[1])].sign()
    squares = torch.stack([(part.double() @ directions).square().sum() for part in parts]).sum()
    scale = (squares / (len(points) * directions.shape[1])).sqrt()
    return torch.cat([(part.double() @ directions / scale).float() for part in parts])
