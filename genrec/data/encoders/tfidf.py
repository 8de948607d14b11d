"""Item text as TF-IDF of words and word pairs, compressed by truncated SVD. Needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError
from genrec.data.encoders import checked_vectors, require_texts

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset


@dataclass(kw_only=True)
class TfidfEncoder:
    """Latent semantic analysis of item texts: (N, ``dim``) float32 rows of length 1 (0 for items without a word).

    ``ngram_max`` is the longest word sequence counted as a term, ``max_features`` keeps the most frequent terms.
    A small catalogue gets as many dimensions as it has terms or items.
    """

    dim: int = 256
    ngram_max: int = 2
    max_features: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "ngram_max", "max_features"):
            if getattr(self, name) < 1:
                raise GenrecError(f"encoder.{name} must be at least 1, got {getattr(self, name)}.")

    def encode(self, dataset: Dataset) -> np.ndarray:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize

        texts = require_texts(dataset, "tfidf")
        vectorizer = TfidfVectorizer(
            ngram_range=(1, self.ngram_max),
            max_features=self.max_features,
            sublinear_tf=True,
            dtype=np.float32,  # pyright: ignore[reportArgumentType]
        )
        try:
            terms = vectorizer.fit_transform(texts)
        except ValueError as error:  # scikit-learn: "empty vocabulary"
            raise GenrecError(
                f"The item texts of {dataset.name!r} hold no words to count ({error}). Use encoder=collaborative."
            ) from None
        dim = min(self.dim, *terms.shape)
        vectors = TruncatedSVD(dim, n_iter=4, random_state=self.seed).fit_transform(terms)
        return checked_vectors(normalize(vectors), num_items=dataset.num_items, origin="encoder=tfidf")
