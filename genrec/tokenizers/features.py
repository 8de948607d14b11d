"""What a tokenizer quantises: item vectors and co-occurrence, brought to one scale.

IDs that carry collaborative signal are worth more to a generative recommender than any change of its network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError
from genrec.cooccurrence import cooccurrence_vectors

if TYPE_CHECKING:
    from genrec.data.ragged import Ragged

# A dimension that varies less than this share of the widest one holds rounding noise; scaled up it would be pure noise.
_CONSTANT = 1e-4
_CHUNK = 8192  # rows that are held in float64 at a time


@dataclass(frozen=True)
class TextTransform:
    """The text part of the features as a map of single vectors: items that nobody has met yet get theirs by it.

    ``mean`` and ``scale`` (D,) float64 standardise, ``scale`` being 0 where a dimension says nothing; ``directions``
    (D, P) float64 are the principal ones; rows are brought to length 1.
    """

    mean: np.ndarray
    scale: np.ndarray
    directions: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, dim: int) -> TextTransform:
        """From ``vectors`` (N, D) in three passes of bounded memory, with at most ``dim`` components."""
        zero = np.zeros(vectors.shape[1])
        mean = sum((part.sum(axis=0) for part in _chunks(vectors)), zero) / len(vectors)
        variance = sum((((part - mean) ** 2).sum(axis=0) for part in _chunks(vectors)), zero) / len(vectors)
        deviation = np.sqrt(variance)
        varies = deviation > _CONSTANT * deviation.max(initial=0.0)
        scale = np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)
        covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
        for part in _chunks(vectors):
            centred = (part - mean) * scale
            covariance += centred.T @ centred / len(vectors)
        return cls(mean, scale, principal_directions(covariance, dim))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, P) float32 of ``vectors`` (N, D)."""
        features = np.empty((len(vectors), self.directions.shape[1]), dtype=np.float32)
        for begin, part in zip(range(0, len(vectors), _CHUNK), _chunks(vectors), strict=True):
            features[begin : begin + _CHUNK] = ((part - self.mean) * self.scale) @ self.directions
        return unit_rows(features)


def _chunks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[begin : begin + _CHUNK].astype(np.float64) for begin in range(0, len(vectors), _CHUNK))


def item_features(
    vectors: np.ndarray,
    train: Ragged,
    *,
    text_dim: int = 96,
    collaborative_dim: int = 64,
    window: int = 3,
    seed: int = 0,
) -> np.ndarray:
    """(N, D) float32 features: principal components of the standardised ``vectors`` beside factors of co-occurrence.

    Every item's part is scaled to length 1, so text and behaviour weigh the same whatever their scale. ``train`` holds
    the training rows only; ``collaborative_dim=0`` leaves that part out. A small catalogue gets as many as it has.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise GenrecError(f"A tokenizer needs item vectors of shape (items, dimensions), got {vectors.shape}.")
    if text_dim < 1 or collaborative_dim < 0:
        raise GenrecError(
            f"tokenizer.text_dim must be at least 1 (got {text_dim}) and tokenizer.collaborative_dim at least 0 "
            f"(got {collaborative_dim}; 0 turns the collaborative part off)."
        )
    parts = [TextTransform.fit(vectors, text_dim)(vectors)]
    if collaborative_dim:
        collaborative = cooccurrence_vectors(
            train, num_items=len(vectors), dim=collaborative_dim, window=window, seed=seed
        )
        parts.append(unit_rows(collaborative))
    return np.concatenate(parts, axis=1)


def standardised(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float64 with mean 0 and variance 1 in each dimension; constant dimensions become 0."""
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    varies = deviation > _CONSTANT * deviation.max(initial=0.0)
    return np.where(varies, centred / np.where(varies, deviation, 1.0), 0.0)


def principal_components(centred: np.ndarray, dim: int) -> np.ndarray:
    """(N, min(dim, D)) float32 projections onto the directions of largest variance, their signs fixed."""
    return (centred @ principal_directions(centred.T @ centred / len(centred), dim)).astype(np.float32)


def principal_directions(covariance: np.ndarray, dim: int) -> np.ndarray:
    """(D, min(dim, D)) orthonormal columns of largest variance, first those of most, their signs fixed."""
    directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :dim]
    strongest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[strongest, np.arange(directions.shape[1])])


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros (an item nothing is known of) stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
