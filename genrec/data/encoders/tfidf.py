"""Item text as TF-IDF of words and word pairs, compressed by truncated SVD. Needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.contracts import GenrecError
from genrec.data.encoders import checked_vectors, require_texts

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

_SAMPLE = 131_072  # items that a large catalogue is described by
_AT_ONCE = 1 << 14


@dataclass(kw_only=True)
class TfidfEncoder:
    """Latent semantic analysis of item texts: (N, ``dim``) float32 rows of length 1 (0 for items without a word).

    ``ngram_max`` is the longest word sequence counted as a term, ``max_features`` keeps the most frequent terms.
    A small catalogue gets as many dimensions as it has terms or items. Of one of more than 131,072 items a random
    sample of so many says which terms count, what they weigh and which directions are kept; the rest are coded by it,
    some thousands at a time.
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
        fitted = list(texts) if len(texts) <= _SAMPLE else self._sample(texts)
        vectorizer = TfidfVectorizer(
            ngram_range=(1, self.ngram_max),
            max_features=self.max_features,
            sublinear_tf=True,
            dtype=np.float32,  # pyright: ignore[reportArgumentType]
        )
        try:
            terms = vectorizer.fit_transform(fitted)
        except ValueError as error:  # scikit-learn: "empty vocabulary"
            raise GenrecError(
                f"The item texts of {dataset.name!r} hold no words to count ({error}). Use encoder=collaborative."
            ) from None
        dim = min(self.dim, *terms.shape)
        if terms.shape[1] == 1:  # which scikit-learn refuses, and there is nothing to compress
            counts: Any = vectorizer.transform(texts)
            vectors = counts.toarray()
            return checked_vectors(normalize(vectors), num_items=dataset.num_items, origin="encoder=tfidf")
        projection = TruncatedSVD(dim, n_iter=4, random_state=self.seed)
        vectors = projection.fit_transform(terms)
        if len(fitted) < len(texts):
            del fitted, terms
            vectors = np.empty((len(texts), dim), dtype=np.float32)
            for begin in range(0, len(texts), _AT_ONCE):
                part = slice(begin, begin + _AT_ONCE)
                vectors[part] = projection.transform(vectorizer.transform(texts[part]))
        return checked_vectors(normalize(vectors, copy=False), num_items=dataset.num_items, origin="encoder=tfidf")

    def _sample(self, texts: Sequence[str]) -> list[str]:
        rows = np.random.default_rng([self.seed, 17]).permutation(len(texts))[:_SAMPLE]
        return [texts[int(row)] for row in np.sort(rows)]
