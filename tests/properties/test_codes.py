"""Codes of items: unique after any policy, saved and read alike, and decoded to what was encoded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.contracts import GenrecError
from genrec.nn.product_quantizer import ProductQuantizer
from genrec.nn.quantizer import VectorQuantizer
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.collisions import resolve_collisions
from genrec.tokenizers.features import TextTransform
from genrec.tokenizers.streaming import ResidualCodec
from tests.properties.effort import effort

sizes_of = st.lists(st.integers(1, 5), min_size=1, max_size=4)
seeds = st.integers(0, 10_000)


def table_of(sizes: list[int], seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(0, size, count) for size in sizes], axis=1)


@pytest.mark.parametrize("policy", ["extra_digit", "expand", "sinkhorn"])
@effort(120)
@given(sizes=sizes_of, seed=seeds, count=st.integers(1, 40))
def test_any_policy_makes_codes_unique(policy: str, sizes: list[int], seed: int, count: int) -> None:
    codes, random = table_of(sizes, seed, count), np.random.default_rng([seed, 1])
    codebooks = [random.standard_normal((size, 3)).astype(np.float32) for size in sizes]
    vectors = random.standard_normal((count, 3)).astype(np.float32)
    popularity = random.integers(0, 9, count)
    try:
        ids = resolve_collisions(policy, codes, vectors=vectors, codebooks=codebooks, popularity=popularity)
    except GenrecError:
        assert policy == "sinkhorn" and count > np.prod(sizes)
        return
    assert len(np.unique(ids.codes, axis=0)) == ids.num_items == count
    if policy != "sinkhorn":
        assert (ids.codes[:, :-1] == codes).all()
        groups = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
        for group in np.unique(groups):
            assert sorted(ids.codes[groups == group, -1]) == list(range(int((groups == group).sum())))
    elif len(np.unique(codes, axis=0)) == count:
        assert (ids.codes == codes).all()


@effort(80)
@given(sizes=sizes_of, seed=seeds)
def test_semantic_ids_are_read_as_they_were_written(sizes: list[int], seed: int) -> None:
    codes = np.unique(table_of(sizes, seed, 30), axis=0)
    ids = SemanticIds(codes, tuple(sizes), max(len(sizes) - 1, 1))
    with tempfile.TemporaryDirectory() as folder:
        ids.save(Path(folder) / "ids.npz")
        again = SemanticIds.load(Path(folder) / "ids.npz")
    assert (again.codes == ids.codes).all()
    assert (again.codebook_sizes, again.num_content_levels) == (ids.codebook_sizes, ids.num_content_levels)
    assert again.fingerprint == ids.fingerprint


@effort(80)
@given(seed=seeds, count=st.integers(1, 20), codes=st.integers(1, 9), width=st.integers(1, 6))
def test_a_quantizer_takes_the_nearest_code_and_keeps_codes(seed: int, count: int, codes: int, width: int) -> None:
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(codes, width).eval()
    inputs = torch.randn(count, width)
    found = quantizer(inputs)
    distances = torch.cdist(inputs.double(), quantizer.codebook.detach().double())
    chosen = distances.gather(1, found.codes[:, None])[:, 0]
    assert torch.allclose(chosen, distances.min(dim=1).values, atol=1e-5)
    assert torch.allclose(found.vectors, quantizer.codebook[found.codes], atol=1e-5)
    assert torch.equal(quantizer.encode(quantizer.codebook.detach()[found.codes]), found.codes)
    assert found.loss.item() >= 0


@effort(60)
@given(seed=seeds, count=st.integers(1, 12), parts=st.integers(1, 4), codes=st.integers(1, 6), width=st.integers(1, 3))
def test_product_codes_decode_to_what_they_name(seed: int, count: int, parts: int, codes: int, width: int) -> None:
    torch.manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(parts * width, parts * width))
    quantizer = ProductQuantizer(rotation, torch.randn(parts, codes, width))
    named = torch.randint(0, codes, (count, parts))
    assert torch.equal(quantizer.encode(quantizer.decode(named)), named)


@effort(60)
@given(seed=seeds, levels=st.integers(1, 4), codes=st.integers(1, 6), width=st.integers(1, 5), narrow=st.integers(1, 5))
def test_a_codec_is_read_as_it_was_written(seed: int, levels: int, codes: int, width: int, narrow: int) -> None:
    random = np.random.default_rng(seed)
    transform = TextTransform(*(random.standard_normal(shape) for shape in ((width,), (width,), (width, narrow))))
    books = [random.standard_normal((codes, narrow)).astype(np.float32) for _ in range(levels)]
    codec, vectors = ResidualCodec(transform, books), random.standard_normal((7, width)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        codec.save(Path(folder) / "codec.npz")
        again = ResidualCodec.load(Path(folder) / "codec.npz")
    assert (again(vectors) == codec(vectors)).all()
    residual = transform(vectors).astype(np.float64)
    for level, book in enumerate(books):
        distances = ((residual[:, None] - book[None]) ** 2).sum(-1)
        chosen = codec(vectors)[:, level]
        assert np.allclose(distances[np.arange(7), chosen], distances.min(1), atol=1e-4)
        residual = residual - book[chosen]
