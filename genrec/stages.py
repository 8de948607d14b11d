"""Upstream stages of a run: item text -> vectors -> semantic IDs, each done once per distinct input and cached."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import genrec
from genrec.artifacts import Cache, atomic_path, fingerprint, read_json, write_json
from genrec.contracts import GenrecError, RunContext
from genrec.data.dataset import Dataset
from genrec.data.encoders import broken_rows
from genrec.nn.several import alone
from genrec.semantic_ids import SemanticIds
from genrec.trainers.world import ALONE, World

if TYPE_CHECKING:
    from genrec.tokenizers.result import TokenizerResult

log = logging.getLogger("genrec.run")

CODEC_FILE = "codec.npz"

_PLACES = ("storage_options", "cache_dir")

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
    config: Mapping[str, Any], build: Callable[[], Any], dataset: Dataset, cache: Cache, world: World = ALONE
) -> tuple[np.ndarray, bool]:
    """Item vectors (N, D) float32 by the encoder of ``config``, and whether they came from the cache.

    Of a ``world`` of several processes each encodes its share of the items where the encoder takes them one by one (it
    has ``encode_items``), else the leader encodes all; all are given all.
    """
    encoder = build()

    def key() -> str:
        read = _content_read(encoder, dataset)
        code = [_source_of(encoder), _code(_ENCODER_CODE)]
        return fingerprint(_choices(config, encoder), dataset.fingerprint, read, *code)

    with _entry(cache, "encoder", key, world) as (folder, ready):
        path = folder / "vectors.npy"
        vectors = None if ready else _encoded(encoder, dataset, world)
        if vectors is not None:
            _check_vectors(vectors, dataset.num_items, type(encoder).__name__)
            with atomic_path(path, needs=vectors.nbytes) as temporary:
                np.save(temporary, vectors, allow_pickle=False)
        world.wait()
        return np.load(path, allow_pickle=False) if vectors is None else vectors, ready


def _encoded(encoder: Any, dataset: Dataset, world: World) -> np.ndarray | None:
    """The vectors of all items, in the leader."""
    encode_items = encoder.encode_items(dataset) if world.size > 1 and hasattr(encoder, "encode_items") else None
    if encode_items is not None:
        bounds = [dataset.num_items * rank // world.size for rank in range(world.size + 1)]
        parts = world.brought(encode_items(bounds[world.rank], bounds[world.rank + 1]))
        return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32) if parts else None
    if not world.leads:
        return None
    with alone():
        return np.ascontiguousarray(encoder.encode(dataset), dtype=np.float32)


@contextmanager
def _entry(cache: Cache, stage: str, key: Callable[[], str], world: World) -> Iterator[tuple[Path, bool]]:
    """``cache.entry`` in all processes. The leader alone takes the lock and fills the folder; the others may read it
    once all have waited for each other."""
    if world.leads:
        with cache.entry(stage, key()) as (folder, ready):
            world.agreed((str(folder), ready))
            yield folder, ready
    else:
        folder, ready = world.agreed(("", False))
        yield Path(folder), ready


def semantic_ids(
    config: Mapping[str, Any],
    build: Callable[[], Any],
    vectors: np.ndarray,
    dataset: Dataset,
    context: RunContext,
    cache: Cache,
) -> Tokenized:
    """Semantic IDs of all items by the tokenizer of ``config``, trained now or taken from the cache.

    Several processes (``context.hardware.world``) train one that ``shares_work`` together, else the leader does alone.
    """
    tokenizer = build()
    world: World = getattr(context.hardware, "world", ALONE)

    def key() -> str:
        train = dataset.sequences.train
        code = [_source_of(tokenizer), _code(_TOKENIZER_CODE)]
        read = _content_read(tokenizer, dataset)
        return fingerprint(_choices(config, tokenizer), context.seed, vectors, train.values, train.offsets, read, code)

    with _entry(cache, "tokenizer", key, world) as (folder, ready):
        ids_path, report_path, codec_path = folder / "semantic_ids.npz", folder / "report.json", folder / CODEC_FILE
        result = None if ready else _fitted(tokenizer, vectors, dataset, replace(context, output_dir=folder))
        if result is not None and world.leads:
            result.semantic_ids.save(ids_path)
            if result.codec is not None:
                result.codec.save(codec_path)
            write_json(report_path, {name: float(value) for name, value in result.report.items()})
        world.wait()
        codec = codec_path if codec_path.exists() else None
        return Tokenized(SemanticIds.load(ids_path), read_json(report_path, dict), ready, codec)


def _fitted(tokenizer: Any, vectors: np.ndarray, dataset: Dataset, context: RunContext) -> TokenizerResult | None:
    """What the tokenizer has made; of one that one process trains, in the leader alone.

    The stage trains inside its cache entry, so a killed tokenizer resumes there whichever run asks next.
    """
    hardware: Any = context.hardware
    by_one = hasattr(hardware, "world") and not getattr(tokenizer, "shares_work", False)
    if by_one:
        if not hardware.world.leads:
            return None
        hardware = hardware.alone()
    elif hasattr(hardware, "undivided"):
        hardware = hardware.undivided()  # codebooks are small, and are not changed by gradients alone
    stage = RunContext(
        output_dir=context.output_dir,
        seed=context.seed,
        hardware=hardware,
        resume=True,
        progress=context.progress,
        interruption=context.interruption,
    )
    with alone() if by_one else nullcontext():
        return tokenizer.fit(vectors, dataset.sequences.train, stage)


def _check_vectors(vectors: np.ndarray, num_items: int, encoder: str) -> None:
    if vectors.ndim != 2 or len(vectors) != num_items:
        raise GenrecError(
            f"{encoder} gave vectors of shape {vectors.shape} for {num_items} items; one row per item is needed."
        )
    bad = len(broken_rows(vectors))
    if bad:
        raise GenrecError(f"{encoder} gave vectors with NaN or infinity for {bad} of {num_items} items.")


def _code(places: tuple[str, ...]) -> str:
    """A fingerprint of the package's own source files at ``places``."""
    root = Path(genrec.__file__).parent
    found: list[Path] = []
    for place in places:
        path = root / place
        found.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path] * path.exists())
    return fingerprint([[path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")] for path in found])


def _choices(config: Mapping[str, Any], component: Any) -> dict[str, Any]:
    """What of a config can change the result: not where files lie that ``content_key`` speaks for."""
    places = ("path", *_PLACES) if hasattr(component, "content_key") else _PLACES
    return {name: value for name, value in config.items() if name not in places}


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
