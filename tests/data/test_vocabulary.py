from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from genrec.data.vocabulary import Counts, HashBuckets, QuantileBuckets, Vocabulary, from_state


def vocabulary(*chunks: list, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
    counts = Counts()
    for chunk in chunks:
        counts.add(pl.Series(chunk))
    return counts.vocabulary(min_count=min_count, max_size=max_size)


def test_ids_fall_with_frequency_and_ties_go_by_value():
    found = vocabulary(["c", "b", "a", "c"], ["b", None, "d"])
    assert found.values.to_list() == ["b", "c", "a", "d"]
    assert found.encode(pl.Series(["d", "b", None, "new"])).tolist() == [4, 1, 0, 0]
    assert found.encode(pl.Series(["d"])).dtype == np.int32
    assert found.size == 5


def test_rare_ids_are_unknown():
    chunks = (["a", "a", "b", "b", "c"], ["a", "d", "c", "e"])
    assert vocabulary(*chunks, min_count=2).values.to_list() == ["a", "b", "c"]
    assert vocabulary(*chunks, max_size=2).values.to_list() == ["a", "b"]
    assert vocabulary(*chunks, min_count=9).encode(pl.Series(["a"])).tolist() == [0]


def test_integers_keep_all_64_bits():
    close = [2**53, 2**53 + 1, 2**63 - 1]
    found = vocabulary(close)
    assert found.encode(pl.Series(close)).tolist() == [1, 2, 3]
    assert found.encode(pl.Series([str(value) for value in close])).tolist() == [1, 2, 3]
    assert found.encode(pl.Series(["x", "007"])).tolist() == [0, 0]


def test_strings_are_compared_as_they_are():
    found = vocabulary(["007", "7", "7"])
    assert found.encode(pl.Series(["7", "007", "07"])).tolist() == [1, 2, 0]
    assert found.encode(pl.Series([7])).tolist() == [1]


def test_chunks_of_integers_and_of_text_make_one_vocabulary():
    assert vocabulary([1, 2, 1], ["1", "x"]).values.to_list() == ["1", "2", "x"]
    assert vocabulary().size == 1


def test_hash_buckets_are_the_same_everywhere():
    found = HashBuckets(1000, integers=False)
    ids = found.encode(pl.Series(["apple", "pear", None, "apple"]))
    assert ids.tolist() == [319, 65, 0, 319]  # blake2b of 8 bytes, little-endian, modulo 1000
    assert found.size == 1001
    numbers = HashBuckets(1000, integers=True).encode(pl.Series(range(5000)))
    assert numbers.min() >= 1 and numbers.max() <= 1000
    assert np.bincount(numbers, minlength=1001)[1:].std() < 3.5  # Poisson of mean 5 has 2.2
    assert np.array_equal(numbers, HashBuckets(1000, integers=True).encode(pl.Series(map(str, range(5000)))))


def test_quantile_buckets_hold_missing_numbers_apart():
    found = QuantileBuckets(np.array([1.0, 2.0]))
    assert found.encode(np.array([0.5, 1.0, 1.5, 2.0, 9.0, np.nan])).tolist() == [1, 2, 2, 3, 3, 0]
    assert found.size == 4


@pytest.mark.parametrize(
    "ids",
    [
        vocabulary([2**63 - 1, -5, 3]),
        vocabulary(["ä", "a\nb", "007"]),
        HashBuckets(7, integers=True),
        QuantileBuckets(np.array([0.1, 1 / 3, 1e300])),
    ],
)
def test_state_survives_json(ids):
    again = from_state(json.loads(json.dumps(ids.state())))
    assert again.state() == ids.state() and again.size == ids.size and type(again) is type(ids)
