"""What every tokenizer returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from genrec.contracts import RunContext
    from genrec.data.ragged import Ragged
    from genrec.semantic_ids import SemanticIds
    from genrec.tokenizers.streaming import ResidualCodec


@dataclass(frozen=True)
class TokenizerResult:
    """Semantic IDs of all items, a quality report (name -> number), and (K, D) codebooks by content level, if known.

    ``codec`` gives the content codes of items beyond the catalogue, where they depend on an item's vector alone.
    """

    semantic_ids: SemanticIds
    report: dict[str, float]
    codebooks: Sequence[np.ndarray] | None = None
    codec: ResidualCodec | None = None


class Tokenizer(Protocol):
    """Turns item vectors (N, D) into semantic IDs; ``train`` is the training part, ``context.seed`` fixes chance."""

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult: ...
