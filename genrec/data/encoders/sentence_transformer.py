"""Item text through a pretrained sentence encoder; needs the optional extra ``text``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.artifacts import file_fingerprint, fingerprint
from genrec.contracts import GenrecError
from genrec.data.encoders import checked_vectors, require_texts
from genrec.data.encoders.file import FileEncoder

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

log = logging.getLogger("genrec.data.encoders")


@dataclass(kw_only=True)
class SentenceTransformerEncoder:
    """(N, D) float32 by any sentence-transformers model.

    ``model_name`` is a name on the Hugging Face hub (downloaded at first use) or a local folder; ``device`` null lets
    the library choose; ``normalize`` scales rows to length 1. ``precomputed`` names a file that may hold the vectors
    already; where it lies in the working directory or in the folder of the data set it is read instead (FileEncoder).
    """

    model_name: str = "sentence-transformers/all-MiniLM-L6-v2"
    batch_size: int = 128
    normalize: bool = True
    device: str | None = None
    precomputed: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise GenrecError(f"encoder.batch_size must be at least 1, got {self.batch_size}.")

    def encode(self, dataset: Dataset) -> np.ndarray:
        prepared = self._prepared(dataset)
        if prepared is not None:
            log.info("reading the vectors of %s from %s", self.model_name, self.precomputed)
            return prepared.encode(dataset)
        vectors = self._texts_encoded(require_texts(dataset, "sentence_transformer"))
        return checked_vectors(vectors, num_items=dataset.num_items, origin=f"sentence encoder {self.model_name}")

    def encode_items(self, dataset: Dataset) -> Callable[[int, int], np.ndarray] | None:
        """What encodes the items from ``begin`` to ``end`` (not included) alone, so that several processes can divide
        them; None where the vectors are read from a file."""
        if self._prepared(dataset) is not None:
            return None
        texts = require_texts(dataset, "sentence_transformer")
        return lambda begin, end: self._texts_encoded(texts[begin:end])

    def _texts_encoded(self, texts: Sequence[str]) -> np.ndarray:
        model = self._load()
        log.info("encoding %d item texts with %s", len(texts), self.model_name)
        return model.encode(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize,
            convert_to_numpy=True,
            show_progress_bar=False,
        )

    def content_key(self, dataset: Dataset) -> str:
        """Changes with the content of the prepared file, and when it comes or goes; else with the files of a local
        model."""
        prepared, folder = self._prepared(dataset), Path(self.model_name)
        if prepared is not None:
            return prepared.content_key(dataset)
        if not folder.is_dir():
            return ""
        names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        seen = sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))
        return fingerprint({name: file_fingerprint(folder / name) for name in seen})

    def _prepared(self, dataset: Dataset) -> FileEncoder | None:
        encoder = None if self.precomputed is None else FileEncoder(path=self.precomputed)
        return encoder if encoder is not None and encoder.exists(dataset) else None

    def _load(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise GenrecError(
                "encoder=sentence_transformer needs the package sentence-transformers, which is not installed. "
                "Run: pip install genrec[text]   Or use encoder=tfidf, which needs nothing more."
            ) from None
        try:
            return SentenceTransformer(self.model_name, device=self.device)
        except Exception as error:  # OSError, HTTP errors or ValueError, as the library below pleases
            raise GenrecError(
                f"The sentence encoder {self.model_name!r} could not be loaded ({type(error).__name__}: {error}). "
                "Check name and network, or give a local folder: encoder.model_name=/a/folder. Offline: encoder=tfidf."
            ) from error
