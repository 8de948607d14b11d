"""Residual k-means: each level clusters what the levels before it left unexplained. Seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from genrec.contracts import GenrecError, RunContext
from genrec.nn.kmeans import balanced, kmeans
from genrec.tokenizers.collisions import EXTRA_DIGIT, Policy, check_policy, resolve_collisions
from genrec.tokenizers.features import TextTransform
from genrec.tokenizers.quality import check_levels, clipped_codebook_size, quality_report
from genrec.tokenizers.result import TokenizerResult
from genrec.tokenizers.sharing import Crew, crew_of, shared_features, shared_nearest
from genrec.tokenizers.streaming import ResidualCodec

if TYPE_CHECKING:
    from genrec.data.ragged import Ragged

_SAMPLE = 262_144  # items that place the centroids; of a larger catalogue a random sample
_ITEMS_AT_ONCE = 1 << 15


@dataclass(kw_only=True)
class RQKMeans:
    """Semantic IDs of ``num_levels`` codes by residual k-means over text and co-occurrence features.

    ``balance`` limits every cluster to that multiple of its even share (None: no limit; 1: equal sizes), which spreads
    items more evenly and collides less at some cost in reconstruction. ``collisions`` names the policy that makes IDs
    unique.
    """

    shares_work: ClassVar[bool] = True  # several processes may call ``fit`` together; the leader has the result

    num_levels: int = 3
    codebook_size: int = 256
    text_dim: int = 96
    collaborative_dim: int = 64
    window: int = 3
    max_iters: int = 50
    balance: float | None = None
    collisions: Policy = EXTRA_DIGIT

    def __post_init__(self) -> None:
        check_policy(self.collisions)
        check_levels(self.num_levels, self.codebook_size)
        if self.max_iters < 1:
            raise GenrecError(f"tokenizer.max_iters must be at least 1, got {self.max_iters}.")
        if self.balance is not None and self.balance < 1:
            raise GenrecError(f"tokenizer.balance must be null or at least 1 (equal sizes), got {self.balance}.")

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        crew = crew_of(context)
        features = shared_features(crew, self, vectors, train, context.seed)
        size = clipped_codebook_size(self.codebook_size, self.num_levels, len(features))
        codes, codebooks = self._quantise(features, size, context.seed, crew)
        ids = resolve_collisions(
            self.collisions,
            codes,
            vectors=features,
            codebooks=codebooks,
            popularity=np.bincount(train.values, minlength=len(features)),
        )
        rebuilt = codebooks[0][codes[:, 0]]
        for level, codebook in enumerate(codebooks[1:], start=1):
            _add_rows(rebuilt, codebook, codes[:, level])
        codec = None if self.collaborative_dim else ResidualCodec(TextTransform.fit(vectors, self.text_dim), codebooks)
        report = quality_report(features, rebuilt, codes, codebooks)
        if codec is not None and self.balance is not None:
            report["codec_agreement"] = float((_coded(codec, vectors) == codes).all(axis=1).mean())
        return TokenizerResult(ids, report, codebooks, codec)

    def _quantise(
        self, features: np.ndarray, size: int, seed: int, crew: Crew | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        assign = shared_nearest(crew)
        residual = torch.from_numpy(features.copy())
        sample = None
        if len(features) > _SAMPLE:
            sample = torch.from_numpy(np.random.default_rng([seed, 13]).permutation(len(features))[:_SAMPLE])
        codes, codebooks = [], []
        for level in range(self.num_levels):
            points = residual if sample is None else residual[sample]
            centroids, chosen = kmeans(points, size, seed=seed + level, max_iters=self.max_iters, assign=assign)
            if sample is not None:
                chosen = assign(residual, centroids)
            if self.balance is not None:
                centroids, chosen = balanced(residual, centroids, capacity=ceil(self.balance * len(features) / size))
            _add_rows(residual.numpy(), -centroids.numpy(), chosen.numpy())
            codes.append(chosen.numpy())
            codebooks.append(centroids.numpy())
        return np.stack(codes, axis=1), codebooks


def _coded(codec: ResidualCodec, vectors: np.ndarray) -> np.ndarray:
    starts = range(0, len(vectors), _ITEMS_AT_ONCE)
    return np.concatenate([codec(vectors[begin : begin + _ITEMS_AT_ONCE]) for begin in starts])


def _add_rows(vectors: np.ndarray, table: np.ndarray, rows: np.ndarray) -> None:
    """Adds row ``rows`` (N,) of ``table`` (K, D) to each of ``vectors`` (N, D), in place and some at a time."""
    for begin in range(0, len(vectors), _ITEMS_AT_ONCE):
        part = slice(begin, begin + _ITEMS_AT_ONCE)
        vectors[part] += table[rows[part]]
