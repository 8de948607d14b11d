"""The item <-> code table: which sequence of discrete codes names which item."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np

from genrec.artifacts import atomic_path, fingerprint, reason_of
from genrec.contracts import NUM_SPECIAL_TOKENS, GenrecError

_LARGEST = 2**26  # codes of a level in a file, each of which gets a vector and a count


@dataclass(frozen=True)
class SemanticIds:
    """One unique row of codes per item.

    ``codes`` (N, C) int64, row i names item i, ``0 <= codes[:, c] < codebook_sizes[c]``. The first
    ``num_content_levels`` levels come from the quantiser, a further one only tells colliding items apart
    (TIGER, section 3.1).
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    num_content_levels: int

    def __post_init__(self) -> None:
        codes = np.ascontiguousarray(self.codes, dtype=np.int64)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "codebook_sizes", tuple(int(size) for size in self.codebook_sizes))
        if codes.ndim != 2 or codes.shape[1] != len(self.codebook_sizes) or codes.shape[1] == 0:
            raise GenrecError(
                f"Semantic IDs need a table of items x levels and one codebook size per level; "
                f"got codes of shape {codes.shape} and {len(self.codebook_sizes)} codebook sizes."
            )
        if not 1 <= self.num_content_levels <= codes.shape[1]:
            raise GenrecError(f"num_content_levels must be 1..{codes.shape[1]}, got {self.num_content_levels}.")
        if len(codes) and (codes.min() < 0 or (codes.max(axis=0) >= np.array(self.codebook_sizes)).any()):
            raise GenrecError(
                f"Codes must lie in 0..size-1 of their level; sizes {self.codebook_sizes}, "
                f"found {codes.min(axis=0).tolist()} to {codes.max(axis=0).tolist()}."
            )
        duplicates = len(codes) - _num_distinct(self._keys(codes))
        if duplicates:
            raise GenrecError(
                f"{duplicates} of {len(codes)} items share their semantic ID with another item. "
                "Make them unique with a collision policy: tokenizer.collisions=extra_digit, sinkhorn or expand."
            )

    @property
    def num_items(self) -> int:
        return self.codes.shape[0]

    @property
    def num_levels(self) -> int:
        return self.codes.shape[1]

    @property
    def vocab_size(self) -> int:
        """Token ids a model must know: the special tokens and every code of every level."""
        return NUM_SPECIAL_TOKENS + sum(self.codebook_sizes)

    @property
    def level_offsets(self) -> np.ndarray:
        """(C,) the token id of code 0 of each level."""
        return NUM_SPECIAL_TOKENS + np.concatenate([[0], np.cumsum(self.codebook_sizes)[:-1]]).astype(np.int64)

    def tokens(self) -> np.ndarray:
        """(N, C) token ids: codes shifted so that no two levels, and no special token, share an id."""
        return self.codes + self.level_offsets

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("semantic_ids", self.codes, list(self.codebook_sizes), self.num_content_levels)

    def items_of(self, codes: np.ndarray) -> np.ndarray:
        """The item each row of ``codes`` (..., C) names, -1 where none does; result has shape (...)."""
        codes = np.asarray(codes, dtype=np.int64)
        valid = np.all((codes >= 0) & (codes < np.array(self.codebook_sizes)), axis=-1)
        keys = self._keys(np.where(np.expand_dims(valid, -1), codes, 0))
        sorted_keys, order = self._lookup
        if len(order) == 0:
            return np.full(keys.shape, -1, dtype=np.int64)
        position = np.minimum(np.searchsorted(sorted_keys, keys), len(order) - 1)
        return np.where(valid & (sorted_keys[position] == keys), order[position], -1)

    @cached_property
    def _lookup(self) -> tuple[np.ndarray, np.ndarray]:
        keys = self._keys(self.codes)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def _keys(self, codes: np.ndarray) -> np.ndarray:
        """One sortable key per row (..., C) of codes in range: its number in mixed radix or, where that could exceed
        62 bits (long IDs of product quantisation), its bytes.
        """
        if prod(self.codebook_sizes) >= 2**62:
            narrow = np.ascontiguousarray(codes, dtype=np.min_scalar_type(max(self.codebook_sizes) - 1))
            return narrow.view(np.dtype((np.void, narrow.shape[-1] * narrow.itemsize)))[..., 0]
        key = np.zeros(codes.shape[:-1], dtype=np.int64)
        for level, size in enumerate(self.codebook_sizes):
            key = key * size + codes[..., level]
        return key

    def save(self, path: Path) -> None:
        """Writes an npz (no pickled objects) atomically."""
        with atomic_path(Path(path)) as temporary:
            np.savez_compressed(
                temporary,
                codes=self.codes,
                codebook_sizes=np.array(self.codebook_sizes),
                num_content_levels=np.array(self.num_content_levels),
            )

    @classmethod
    def load(cls, path: Path) -> SemanticIds:
        path = Path(path)
        if not path.exists():
            raise GenrecError(
                f"No semantic IDs at {path}. Give the semantic_ids.npz of a finished tokenizer or rqvae run."
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                sizes = tuple(int(size) for size in archive["codebook_sizes"].tolist())
                if max(sizes, default=0) > _LARGEST:
                    raise GenrecError(f"{path} names {max(sizes):,} codes of a level; {_LARGEST:,} are the most.")
                return cls(archive["codes"], sizes, int(archive["num_content_levels"]))
        except GenrecError:
            raise
        except Exception as error:
            raise GenrecError(
                f"{path} is not a semantic-ID file ({reason_of(error)}). Give the semantic_ids.npz of a finished run."
            ) from None


def _num_distinct(keys: np.ndarray) -> int:
    """How many distinct ``keys`` (N,) there are; numbers are sorted, which is faster than ``np.unique``."""
    if keys.dtype.kind not in "iu":
        return len(np.unique(keys))
    ordered = np.sort(keys)
    return len(keys) - int((ordered[1:] == ordered[:-1]).sum())
