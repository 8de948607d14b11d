"""Which items stand close together in the training sequences: the collaborative signal that needs no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from genrec.data.ragged import Ragged

_LARGE = 262_144  # items
_ROUNDS, _MORE = 4, 10  # of power iteration; further columns of the subspace
_NOTHING = 1e-10  # of the largest variance
_CHUNK = 1 << 14


def cooccurrence_counts(train: Ragged, *, num_items: int, window: int = 3) -> csr_array:
    """Symmetric (N, N) counts of how often two different items stand at most ``window`` steps apart in one row."""
    from scipy.sparse import coo_array

    if window < 1:
        raise GenrecError(f"The co-occurrence window counts steps and must be at least 1, got {window}.")
    narrow = np.int32 if num_items < 2**31 else np.int64
    values, rows = train.values.astype(narrow), train.row_of_value
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
    For more than 262,144 items it is computed in float32, with the memory of three such results.
    """
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
    if num_items > _LARGE:
        return _factors_of_large(matrix.astype(np.float32), rank, seed)
    return _factors(matrix, rank, seed)


def _factors(matrix: csr_array, rank: int, seed: int) -> np.ndarray:
    from sklearn.utils.extmath import randomized_svd

    left, singular, _ = randomized_svd(matrix, rank, n_iter=_ROUNDS, random_state=seed)  # pyright: ignore[reportArgumentType]
    return (left * np.sqrt(singular)).astype(np.float32)


def _factors_of_large(matrix: Any, rank: int, seed: int) -> np.ndarray:
    """As ``_factors`` of a symmetric matrix, up to signs and to how far the iteration has come: that of a subspace
    (Halko et al. 2011, algorithm 4.4) with Gram matrices in place of decompositions of tall ones."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((matrix.shape[0], min(rank + _MORE, matrix.shape[0])), dtype=np.float32)
    for _ in range(2 * _ROUNDS + 1):
        basis = _orthonormal(matrix @ basis)
    values, turned = np.linalg.eigh(_product(basis, matrix @ basis))
    strongest = np.argsort(-np.abs(values), kind="stable")[:rank]
    factors = basis @ (turned[:, strongest] * np.sqrt(np.abs(values[strongest]))).astype(np.float32)
    missing = rank - factors.shape[1]  # of a matrix of lower rank
    return np.pad(factors, ((0, 0), (0, missing))) if missing else factors


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """(N, r) float32 orthonormal columns that span ``columns`` (N, R), r below R where some add nothing."""
    values, directions = np.linalg.eigh(_product(columns, columns))
    kept = values > _NOTHING * values[-1]
    return columns @ (directions[:, kept] / np.sqrt(values[kept])).astype(np.float32)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(R, R) float64 of (N, R) and (N, R), of which some rows at a time are in float64."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for begin in range(0, len(left), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        total += left[part].T.astype(np.float64) @ right[part].astype(np.float64)
    return total
