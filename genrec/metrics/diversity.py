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
    pairs = there[:, :, None] & there[:, None, :]
    pairs &= ~torch.eye(items.shape[1], dtype=torch.bool, device=items.device)
    own = codes[safe]  # (B, S, C)
    differ = (own[:, :, None] != own[:, None]).double().mean(dim=3)
    metrics["intra_list_hamming"] = _mean_over_lists(differ, pairs)
    if vectors is not None:
        unit = torch.nn.functional.normalize(vectors.double(), dim=1)[safe]
        metrics["intra_list_distance"] = _mean_over_lists(1.0 - unit @ unit.transpose(1, 2), pairs)
    return metrics


def _mean_over_lists(distances: Tensor, pairs: Tensor) -> float:
    """The mean of (B, S, S) over the pairs of each list, then over the lists that have any."""
    counts = pairs.sum(dim=(1, 2))
    means = (distances * pairs).sum(dim=(1, 2)) / counts.clamp(min=1)
    return float(means[counts > 0].mean()) if bool((counts > 0).any()) else 0.0
