"""How varied generated items are: over all lists, code by code, and within each list.

B lists, S items per list, N items, C levels of codes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genrec.contracts import IGNORE


def evaluate_diversity(items: Tensor, codes: Tensor, vectors: Tensor | None = None) -> dict[str, float]:
    """Diversity of the lists ``items`` (B, S), filled with IGNORE, of a catalogue with ``codes`` (N, C).

    - ``distinct_items``: distinct items / items generated; ``coverage``: distinct items / N.
    - ``distinct_codes/level_c``: distinct codes of a level that were generated / those that the catalogue uses.
    - ``intra_list_hamming``: the share of levels in which two items of a list differ, over the pairs of a list, then
      over lists; with ``vectors`` (N, D) also ``intra_list_distance``, 1 - cosine (Ziegler et al. 2005).

    Lists of fewer than two items count in no mean over pairs; 0.0 where there are no other.
    """
    there = items != IGNORE
    generated = items[there]
    distinct = generated.unique()
    metrics = {
        "distinct_items": len(distinct) / max(len(generated), 1),
        "coverage": len(distinct) / len(codes),
    }
    for level in range(codes.shape[1]):
        used = len(codes[:, level].unique())
        metrics[f"distinct_codes/level_{level}"] = len(codes[distinct, level].unique()) / used
    safe = items.clamp(min=0)
    own = codes[safe]  # (B, S, C)
    differ = (own[:, :, None] != own[:, None]).double().mean(dim=3)
    metrics["intra_list_hamming"] = _mean_over_lists(differ, there)
    if vectors is not None:
        unit = torch.nn.functional.normalize(vectors.double(), dim=1)
        metrics["intra_list_distance"] = _mean_over_lists(cosine_distances(unit, safe), there)
    return metrics


def cosine_distances(unit: Tensor, items: Tensor) -> Tensor:
    """1 - cosine (B, S, S) between the items of each list (B, S), given vectors of length one (N, D)."""
    own = torch.nn.functional.embedding(items, unit)  # (B, S, D); faster than indexing
    return 1.0 - own @ own.transpose(1, 2)


def means_over_pairs(distances: Tensor, there: Tensor) -> Tensor:
    """The mean over the pairs among the first s places of each list, (B, S) float64 for s = 1 .. S.

    ``distances`` (B, S, S) are symmetric and ``there`` (B, S) says which places are filled; nan where fewer than two
    are.
    """
    pairs = (there[:, :, None] & there[:, None, :]).tril(diagonal=-1)
    totals = (distances * pairs).sum(dim=2, dtype=torch.float64).cumsum(dim=1)
    return totals / pairs.sum(dim=2).cumsum(dim=1)


def _mean_over_lists(distances: Tensor, there: Tensor) -> float:
    """The mean over the pairs of each list, then over the lists that have any; 0.0 where none has."""
    means = means_over_pairs(distances, there)[:, -1]
    means = means[~means.isnan()]
    return float(means.mean()) if len(means) else 0.0
