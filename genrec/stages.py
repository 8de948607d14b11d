"""Upstream stages of a run: item text -> vectors -> semantic IDs, each done once per distinct input and cached."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import genrec
from genrec.artifacts import Cache, atomic_path, fingerprint, read_json, write_json
from genrec.contracts import GenrecError, RunContext
from genrec.data.dataset import Dataset
from genrec.semantic_ids import SemanticIds

log = logging.getLogger("genrec.run")

CODEC_FILE = "codec.npz"

# The code whose change makes a cached artifact of a stage stale.
_ENCODER_CODE = ("data/encoders", "cooccurrence.py")
_TOKENIZER_CODE = ("tokenizers", "nn", "cooccurrence.py", "models/rqvae.py", "trainers/rqvae.py")


@dataclass(frozen=True)
class Tokenized:
    """Semantic IDs and the tokenizer's quality report (name -> number).

    ``codec`` is the file by which a tokenizer of text alone codes further items (``genrec.tokenizers.streaming``).
    """

    semantic_ids: SemanticIds
    report: dict[str, float]
    cached: bool
    codec: Path | None = None


def item_vectors(
    config: Mapping[str, Any], build: Callable[[], Any], dataset: Dataset, cache: Cache
) -> tuple[np.ndarray, bool]:
    """Item vectors (N, D) float32 by the encoder of ``config``, and whether they came from the cache."""
    encoder = build()
    read = _content_read(encoder, dataset)
    key = fingerprint(config, dataset.fingerprint, read, _source_of(encoder), _code(_ENCODER_CODE))
    with cache.entry("encoder", key) as (folder, ready):
        path = folder / "vectors.npy"
        if ready:
            return np.load(path, allow_pickle=False), True
        vectors = np.ascontiguousarray(encoder.encode(dataset), dtype=np.float32)
        _check_vectors(vectors, dataset.num_items, type(encoder).__name__)
        with atomic_path(path) as temporary:
            np.save(temporary, vectors, allow_pickle=False)
        return vectors, False


def semantic_ids(
    config: Mapping[str, Any],
    build: Callable[[], Any],
    vectors: np.ndarray,
    dataset: Dataset,
    context: RunContext,
    cache: Cache,
) -> Tokenized:
    """Semantic IDs of all items by the tokenizer of ``config``, trained now or taken from the cache."""
    tokenizer = build()
    train = dataset.sequences.train
    code = [_source_of(tokenizer), _code(_TOKENIZER_CODE)]
    read = _content_read(tokenizer, dataset)
    key = fingerprint(config, context.seed, vectors, train.values, train.offsets, read, code)
    with cache.entry("tokenizer", key) as (folder, ready):
        ids_path, report_path, codec_path = folder / "semantic_ids.npz", folder / "report.json", folder / CODEC_FILE
        if not ready:
            # The stage trains inside its cache entry, so a killed tokenizer resumes there whichever run asks next.
            stage = RunContext(
                output_dir=folder,
                seed=context.seed,
                hardware=context.hardware,
                resume=True,
                progress=context.progress,
            )
            result = tokenizer.fit(vectors, train, stage)
            result.semantic_ids.save(ids_path)
            if result.codec is not None:
                result.codec.save(codec_path)
            write_json(report_path, {name: float(value) for name, value in result.report.items()})
        codec = codec_path if codec_path.exists() else None
        return Tokenized(SemanticIds.load(ids_path), read_json(report_path), ready, codec)


def _check_vectors(vectors: np.ndarray, num_items: int, encoder: str) -> None:
    if vectors.ndim != 2 or len(vectors) != num_items:
        raise GenrecError(
            f"{encoder} gave vectors of shape {vectors.shape} for {num_items} items; one row per item is needed."
        )
    if not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        raise GenrecError(f"{encoder} gave vectors with NaN or infinity for {bad} of {num_items} items.")


def _code(places: tuple[str, ...]) -> str:
    """A fingerprint of the package's own source files at ``places``."""
    root = Path(genrec.__file__).parent
    found: list[Path] = []
    for place in places:
        path = root / place
        found.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.exists())
    return fingerprint([[path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")] for path in found])


def _content_read(component: Any, dataset: Dataset) -> str:
    """What a component says it reads besides its config and the data set (``content_key``), such as a file."""
    return str(component.content_key(dataset)) if hasattr(component, "content_key") else ""


def _source_of(component: Any) -> str:
    """The source of the component's module, so that a user's own encoder or tokenizer invalidates its cache as well."""
    module = inspect.getmodule(type(component))
    try:
        return inspect.getsource(module) if module is not None else ""
    except OSError:
        return ""
