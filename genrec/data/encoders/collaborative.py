"""Items as factors of their co-occurrence in the training sequences. Needs no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError
from genrec.cooccurrence import cooccurrence_vectors
from genrec.data.encoders import checked_vectors

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset


@dataclass(kw_only=True)
class CollaborativeEncoder:
    """(N, ``dim``) float32: SVD of log counts of items at most ``window`` steps apart in the training part."""

    dim: int = 64
    window: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "window"):
            if getattr(self, name) < 1:
                raise GenrecError(f"encoder.{name} must be at least 1, got {getattr(self, name)}.")

    def encode(self, dataset: Dataset) -> np.ndarray:
        vectors = cooccurrence_vectors(
            dataset.sequences.train, num_items=dataset.num_items, dim=self.dim, window=self.window, seed=self.seed
        )
        return checked_vectors(vectors, num_items=dataset.num_items, origin="encoder=collaborative")
