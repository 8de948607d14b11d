"""Semantic IDs that were made before, by another run or another program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genrec.artifacts import file_fingerprint
from genrec.contracts import GenrecError
from genrec.metrics.codebook import evaluate_collisions, evaluate_quantization
from genrec.remote.addresses import shown
from genrec.remote.copies import DEFAULT_CACHE, localised
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.result import TokenizerResult

if TYPE_CHECKING:
    import numpy as np

    from genrec.contracts import RunContext
    from genrec.data.dataset import Dataset
    from genrec.data.ragged import Ragged


@dataclass(kw_only=True)
class FileTokenizer:
    """Reads the ``semantic_ids.npz`` at ``path``; its rows must be the items of the data set, in their order.

    ``path`` may be an address of a remote store, which ``storage_options`` belong to; copies lie below ``cache_dir``.
    """

    path: str
    storage_options: dict[str, Any] | None = None
    cache_dir: str = DEFAULT_CACHE

    def content_key(self, dataset: Dataset) -> str:
        """Changes with the content of the file, so that cached semantic IDs never outlive it."""
        return file_fingerprint(self._file)

    @cached_property
    def _file(self) -> Path:
        return localised(self.path, self.cache_dir, self.storage_options).expanduser()

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        ids = SemanticIds.load(self._file)
        if ids.num_items != len(vectors):
            raise GenrecError(
                f"{shown(self.path)} names {ids.num_items} items, but the data set has {len(vectors)}. "
                "Give IDs made from this data set with this filtering, or make new ones: tokenizer=rqkmeans."
            )
        content = torch.from_numpy(ids.codes[:, : ids.num_content_levels])
        sizes = ids.codebook_sizes[: ids.num_content_levels]
        return TokenizerResult(ids, {**evaluate_collisions(content), **evaluate_quantization(content, sizes)})
