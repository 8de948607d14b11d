"""Encoders and tokenizers of a run in two processes: each does its share, and the result is that of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import in_two

import genrec.tokenizers.sharing as sharing
from genrec.artifacts import Cache
from genrec.balancing import balancer
from genrec.config import compose_config, instantiate
from genrec.contracts import RunContext
from genrec.data.ragged import Ragged
from genrec.nn.kmeans import CHUNK
from genrec.nn.mlp import BatchNorm
from genrec.semantic_ids import SemanticIds
from genrec.stages import item_vectors, semantic_ids
from genrec.tokenizers.result import TokenizerResult
from genrec.tokenizers.rqvae import RQVAETokenizer
from genrec.trainers.hardware import Hardware

MANY = CHUNK + 100
IN_DOUBT = 0.01  # share of items whose code may be another one, since sums of parts are rounded otherwise


@dataclass
class Catalogue:
    """What a stage asks of a data set."""

    num_items: int
    fingerprint: str = "catalogue"
    name: str = "catalogue"
    sequences: Any = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        rows = [rng.integers(self.num_items, size=12).tolist() for _ in range(self.num_items // 2)]
        self.sequences = type("Sequences", (), {"train": Ragged.from_rows(rows)})()

    def vectors(self, width: int = 8) -> np.ndarray:
        """Around some hundred centres, so that the nearest code is seldom in doubt."""
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(120, width))
        return (
            centres[rng.integers(120, size=self.num_items)] + 0.2 * rng.normal(size=(self.num_items, width))
        ).astype(np.float32)


def tokenized(hardware: Hardware, folder: str, num_items: int, name: str, *words: str) -> dict[str, Any]:
    """What the stage gives, twice; how many rows this process has compared with centroids."""
    config = compose_config([f"tokenizer={name}", "tokenizer.text_dim=8", "tokenizer.collaborative_dim=0", *words])
    data, seen = Catalogue(num_items), []
    plain = sharing.nearest_codes

    def counted(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
        seen.append(len(points))
        return plain(points, centroids)

    def build() -> Any:
        return instantiate(config.tokenizer, _convert_="all")

    sharing.nearest_codes = counted
    context = RunContext(output_dir=Path(folder), seed=3, hardware=hardware, progress=False)
    found = []
    try:
        for _ in range(2):
            found.append(semantic_ids({"name": name}, build, data.vectors(), data, context, Cache(Path(folder))))  # pyright: ignore[reportArgumentType]
    finally:
        sharing.nearest_codes = plain
    return {
        "codes": found[0].semantic_ids.codes,
        "again": found[1].semantic_ids.codes,
        "cached": [one.cached for one in found],
        "report": found[0].report,
        "rows": sum(seen),
        "codec": found[0].codec is not None,
    }


def compared(
    tmp_path: Path, num_items: int, levels: int, name: str, *words: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process and each of two find; a digit behind the ``levels`` tells items of the same codes apart."""
    words = (f"tokenizer.num_levels={levels}", *words)
    single = tokenized(Hardware(accelerator="cpu"), str(tmp_path / "one"), num_items, name, *words)
    pair = in_two(tokenized, str(tmp_path / "two"), num_items, name, *words)
    for found in pair:
        assert found["cached"] == single["cached"] == [False, True]
        assert found["codec"] == single["codec"]
        np.testing.assert_array_equal(found["codes"], pair[0]["codes"])
        np.testing.assert_array_equal(found["again"], found["codes"])
        assert found["codes"].shape == single["codes"].shape
        assert np.mean((found["codes"] != single["codes"])[:, :levels].any(axis=1)) <= IN_DOUBT
        rel = 1e-5 if np.array_equal(found["codes"], single["codes"]) else 0.2
        assert found["report"] == {key: pytest.approx(value, rel=rel) for key, value in single["report"].items()}
    return single, pair


def test_k_means_gives_the_codes_of_one_process_and_each_looks_at_its_share(tmp_path: Path) -> None:
    words = ["tokenizer.codebook_size=16", "tokenizer.max_iters=6"]
    single, pair = compared(tmp_path, MANY, 2, "rqkmeans", *words)
    assert sum(found["rows"] for found in pair) == single["rows"] > 4 * MANY  # every item by one of the two
    assert 0 < pair[1]["rows"] < pair[0]["rows"]  # the second batch, which is the smaller


def test_an_rqvae_trained_by_two_gives_the_codes_of_one(tmp_path: Path) -> None:
    words = ["tokenizer.codebook_size=16", "tokenizer.trainer.max_epochs=2", "tokenizer.trainer.batch_size=128"]
    single, _ = compared(tmp_path, 600, 3, "rqvae", *words)
    assert len(np.unique(single["codes"][:, 0])) > 8  # so that equal is not merely all alike
    names = [sorted(path.name for path in (tmp_path / of).rglob("*")) for of in ("one", "two")]
    assert names[0] == names[1]


def test_opq_codes_are_those_of_one(tmp_path: Path) -> None:
    compared(tmp_path, 600, 4, "opq", "tokenizer.codebook_size=8", "tokenizer.max_iters=3")


@dataclass
class Lone:
    """A tokenizer that knows nothing of processes."""

    calls: list[int] = field(default_factory=list)

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        assert context.hardware is not None and context.hardware.world.size == 1
        self.calls.append(len(vectors))
        return TokenizerResult(SemanticIds(np.arange(len(vectors))[:, None], (len(vectors),), 1), {"mean": 1.0})


def lone(hardware: Hardware, folder: str) -> tuple[list[int], np.ndarray]:
    tokenizer, data = Lone(), Catalogue(20)
    context = RunContext(output_dir=Path(folder), hardware=hardware, progress=False)
    found = semantic_ids({}, lambda: tokenizer, data.vectors(), data, context, Cache(Path(folder)))  # pyright: ignore[reportArgumentType]
    return tokenizer.calls, found.semantic_ids.codes


def test_one_that_does_not_share_is_left_to_the_leader(tmp_path: Path) -> None:
    (first, codes), (second, same) = in_two(lone, str(tmp_path))
    assert (first, second) == ([20], [])
    np.testing.assert_array_equal(codes, same)


class LoneRQVAE(RQVAETokenizer):
    """Its codebooks look at whole batches, and so do what it adds."""

    shares_work = False

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> TokenizerResult:
        rows = torch.from_numpy(vectors)
        hidden = BatchNorm(rows.shape[1]).train()(rows)
        tasks, weights = balancer("pcgrad"), [torch.nn.Parameter(torch.ones(rows.shape[1]))]
        tasks.start(["one", "other"], kinds=dict.fromkeys(["one", "other"], "regression"))
        tasks.backward({"one": (hidden @ weights[0]).mean(), "other": weights[0].square().sum()}, weights, [])
        assert weights[0].grad is not None
        return super().fit(vectors, train, context)


class LoneEncoder:
    """Looks at whole batches, too."""

    def encode(self, dataset: Any) -> np.ndarray:
        return BatchNorm(8).train()(torch.from_numpy(dataset.vectors())).detach().numpy()


def by_the_leader(hardware: Hardware, folder: str) -> tuple[np.ndarray, int]:
    data, cache, world = Catalogue(60), Cache(Path(folder)), hardware.world
    vectors, _ = item_vectors({}, LoneEncoder, data, cache, world)  # pyright: ignore[reportArgumentType]
    words = ["tokenizer.text_dim=8", "tokenizer.collaborative_dim=0"]
    words += ["tokenizer.codebook_size=8", "tokenizer.trainer.max_epochs=2", "tokenizer.trainer.batch_size=32"]
    context = RunContext(output_dir=Path(folder), hardware=hardware, progress=False)

    def build() -> Any:
        return LoneRQVAE(**vars(instantiate(compose_config(["tokenizer=rqvae", *words]).tokenizer, _convert_="all")))

    found = semantic_ids({}, build, vectors, data, context, cache)  # pyright: ignore[reportArgumentType]
    return found.semantic_ids.codes, int(world.sum(torch.ones(1)))


def test_what_the_leader_does_alone_waits_for_nobody(tmp_path: Path) -> None:
    codes, _ = by_the_leader(Hardware(accelerator="cpu"), str(tmp_path / "one"))
    for found, together in in_two(by_the_leader, str(tmp_path / "two"), seconds=60):
        np.testing.assert_array_equal(found, codes)
        assert together == 2


@dataclass
class ItemByItem:
    """Notes which items it was asked for."""

    asked: list[tuple[int, int]] = field(default_factory=list)

    def encode(self, dataset: Any) -> np.ndarray:
        return self.encode_items(dataset)(0, dataset.num_items)

    def encode_items(self, dataset: Any) -> Callable[[int, int], np.ndarray]:
        def encode(begin: int, end: int) -> np.ndarray:
            self.asked.append((begin, end))
            return np.arange(begin, end, dtype=np.float32)[:, None] * np.ones(3, dtype=np.float32)

        return encode


def encoded(hardware: Hardware, folder: str) -> tuple[list[tuple[int, int]], np.ndarray, list[bool]]:
    encoder, data = ItemByItem(), Catalogue(21)
    found = [item_vectors({}, lambda: encoder, data, Cache(Path(folder)), hardware.world) for _ in range(2)]  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    return encoder.asked, found[0][0], [cached for _, cached in found]


def test_each_encodes_its_items(tmp_path: Path) -> None:
    (first, vectors, cached), (second, same, _) = in_two(encoded, str(tmp_path))
    assert (first, second) == ([(0, 10)], [(10, 21)]) and cached == [False, True]
    np.testing.assert_array_equal(vectors, np.arange(21, dtype=np.float32)[:, None] * np.ones(3))
    np.testing.assert_array_equal(vectors, same)
