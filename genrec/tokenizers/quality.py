"""The size of a codebook that suits a catalogue, and how good the codes of a tokenizer are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil

import numpy as np
import torch

from genrec.contracts import GenrecError
from genrec.metrics.codebook import evaluate_collisions, evaluate_quantization

log = logging.getLogger("genrec.tokenizers")

_ITEMS_AT_ONCE = 1 << 15


def check_levels(num_levels: int, codebook_size: int) -> None:
    """Raises when the shape of the codes makes no sense."""
    if num_levels < 1 or codebook_size < 2:
        raise GenrecError(
            f"tokenizer.num_levels must be at least 1 (got {num_levels}) and tokenizer.codebook_size at least 2 "
            f"(got {codebook_size})."
        )


def clipped_codebook_size(wanted: int, num_levels: int, num_items: int) -> int:
    """At most one code per four items and level, as long as the codes can still name every item; a clip is logged.

    With more codes than that a code of the first level is an item's name rather than something items share.
    """
    enough = max(2, ceil(num_items / 4), ceil(num_items ** (1 / num_levels)))
    if wanted <= enough:
        return wanted
    log.info("codebook_size %d is clipped to %d: the catalogue has only %d items", wanted, enough, num_items)
    return enough


def quality_report(
    vectors: np.ndarray, rebuilt: np.ndarray, codes: np.ndarray, codebooks: Sequence[np.ndarray]
) -> dict[str, float]:
    """Collisions and codebook use of the content ``codes`` (N, C), before any policy, and ``reconstruction_error``:
    the share of the variance of ``vectors`` (N, D) that ``rebuilt`` (N, D) leaves unexplained.
    """
    table = torch.from_numpy(codes)
    total = _squares(vectors, vectors.mean(axis=0, dtype=np.float64).astype(vectors.dtype))
    return {
        **evaluate_collisions(table),
        **evaluate_quantization(table, [len(codebook) for codebook in codebooks]),
        "reconstruction_error": _squares(vectors, rebuilt) / total if total > 0 else 0.0,
    }


def _squares(vectors: np.ndarray, others: np.ndarray) -> float:
    """The sum of squared differences of ``vectors`` (N, D) to ``others`` (N, D) or (D,)."""
    total = 0.0
    for begin in range(0, len(vectors), _ITEMS_AT_ONCE):
        part = slice(begin, begin + _ITEMS_AT_ONCE)
        total += float(((vectors[part] - (others if others.ndim == 1 else others[part])) ** 2).sum())
    return total
