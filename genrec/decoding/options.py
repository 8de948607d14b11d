"""What may be asked of sampling; apart from sampling itself, so that a command line is checked without torch."""

from __future__ import annotations

import math

from genrec.contracts import GenrecError


def check_sampling(*, temperature: float, top_k: int, top_p: float, prefix: str = "") -> None:
    """Raises GenrecError unless temperature > 0, top_k >= 0 (0: all) and 0 < top_p <= 1; ``prefix`` names the place."""
    if not 0.0 < temperature < math.inf:
        raise GenrecError(
            f"{prefix}temperature={temperature}: give a number above 0; 1 draws from the model's own distribution, "
            f"less is more certain. For the likeliest code always, use {prefix}top_k=1."
        )
    if top_k < 0 or top_k != int(top_k):
        raise GenrecError(f"{prefix}top_k={top_k}: give a whole number of 1 or more, or 0 to leave none out.")
    if not 0.0 < top_p <= 1.0:
        raise GenrecError(f"{prefix}top_p={top_p}: give a share above 0 and at most 1; 1 leaves none out.")


def check_count(num_samples: int) -> None:
    """Raises GenrecError unless there is something to draw."""
    if num_samples < 1:
        raise GenrecError(f"num_samples={num_samples}: give a whole number of 1 or more.")
