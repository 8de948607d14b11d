"""Which items stand close together in the training sequences: the collaborative signal that needs no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from genrec.data.ragged import Ragged


def cooccurrence_counts(train: Ragged, *, num_items: int, window: int = 3) -> csr_array:
    """Symmetric (N, N) counts of how often two different items stand at most ``window`` steps apart in one row."""
    from scipy.sparse import coo_array

    if window < 1:
        raise GenrecError(f"The co-occurrence window counts steps and must be at least 1, got {window}.")
    values, rows = train.values, train.row_of_value
    lefts, rights = [], []
    for step in range(1, window + 1):
        left, right = values[:-step], values[step:]
        pair = (rows[:-step] == rows[step:]) & (left != right)
        lefts.append(left[pair])
        rights.append(right[pair])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    both_ways = (np.concatenate([left, right]), np.concatenate([right, left]))
    ones = np.ones(2 * len(left), dtype=np.float64)
    return coo_array((ones, both_ways), shape=(num_items, num_items)).tocsr()  # tocsr() adds up repeated pairs


def cooccurrence_vectors(train: Ragged, *, num_items: int, dim: int = 64, window: int = 3, seed: int = 0) -> np.ndarray:
    """(N, D) float32 factors of log(1 + co-occurrence), D = ``dim`` or the most that the catalogue allows.

    Truncated SVD; each side takes the square root of the singular values. Items without a training neighbour get zeros.
    """
    from sklearn.utils.extmath import randomized_svd

    if dim < 1:
        raise GenrecError(f"The number of collaborative dimensions must be at least 1, got {dim}.")
    matrix = cooccurrence_counts(train, num_items=num_items, window=window)
    if matrix.nnz == 0:
        raise GenrecError(
            "No two items stand near each other in the training sequences, so there is no collaborative signal. "
            "Use longer histories, or text vectors with tokenizer.collaborative_dim=0."
        )
    matrix.data = np.log1p(matrix.data)
    rank = min(dim, num_items)
    left, singular, _ = randomized_svd(matrix, rank, n_iter=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    return (left * np.sqrt(singular)).astype(np.float32)
