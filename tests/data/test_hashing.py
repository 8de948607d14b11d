from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from genrec.data.hashing import draws, hashes, splitmix64, uniforms


def test_splitmix64_gives_the_published_sequence():
    """The first outputs of the reference generator from state 0, which steps by the golden gamma."""
    states = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64).view(np.int64)
    assert [hex(value) for value in splitmix64(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_draws_belong_to_rows_and_not_to_chunks():
    whole = draws(7, np.arange(1000))
    parts = np.concatenate([draws(7, np.arange(0, 300)), draws(7, np.arange(300, 1000))])
    assert np.array_equal(whole, parts)
    assert len(np.unique(whole)) == 1000
    assert not np.isin(whole, draws(8, np.arange(1000))).any()


def test_uniforms_are_even():
    values = uniforms(42, np.arange(100_000))
    assert values.min() >= 0 and values.max() < 1
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert abs(counts - 5000).max() < 5 * 5000**0.5
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02


def test_strings_hash_by_their_bytes_and_integers_by_their_value():
    texts = pl.Series(["ä", "b", None, "ä"])
    found = hashes(texts)
    expected = int.from_bytes(hashlib.blake2b("ä".encode(), digest_size=8).digest(), "little")
    assert found[0] == found[3] == expected and found[1] != expected
    numbers = pl.Series([2**62, None, -1])
    assert hashes(numbers)[0] == splitmix64(np.array([2**62]))[0]
