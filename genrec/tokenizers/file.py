"""Semantic IDs that were made before, by another run or another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genrec.artifacts import file_fingerprint
from genrec.contracts import GenrecError
from genrec.metrics.codebook import evaluate_collisions, evaluate_quantization
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.result import TokenizerResult

if TYPE_CHECKING:
    import numpy as np

    from genrec.contracts import RunContext
    from genrec.data.dataset import Dataset
    from genrec.data.ragged import Ragged


@dataclass(kw_only=True)
class FileTokenizer:
    """Reads the ``semantic_ids.npz`` at ``path``; its rows must be the items of the data set, in their order."""

    path: str

    def content_key(self, dataset: Dataset) -> str:
        """Changes with the content of the file, so that cached semantic IDs never outlive it."""
        return file_fingerprint(Path(self.path).expanduser())

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        ids = SemanticIds.load(Path(self.path).expanduser())
        if ids.num_items != len(vectors):
            raise GenrecError(
                f"{self.path} names {ids.num_items} items, but the data set has {len(vectors)}. "
                "Give IDs made from this data set with this filtering, or make new ones: tokenizer=rqkmeans."
            )
        content = torch.from_numpy(ids.codes[:, : ids.num_content_levels])
        sizes = ids.codebook_sizes[: ids.num_content_levels]
        return TokenizerResult(ids, {**evaluate_collisions(content), **evaluate_quantization(content, sizes)})
