"""The item <-> code table."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import BOS_TOKEN, PAD_TOKEN, GenrecError
from genrec.semantic_ids import SemanticIds

CODES = np.array([[0, 2, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]])


def make() -> SemanticIds:
    return SemanticIds(CODES, (2, 3, 2), 2)


def test_counts_and_tokens_by_hand() -> None:
    ids = make()
    assert (ids.num_items, ids.num_levels, ids.vocab_size) == (4, 3, 9)
    assert ids.level_offsets.tolist() == [2, 4, 7]
    assert ids.tokens().tolist() == [[2, 6, 7], [3, 4, 7], [3, 4, 8], [2, 4, 7]]


def test_code_zero_is_never_a_special_token_and_levels_share_none() -> None:
    tokens = make().tokens()
    assert not np.isin(tokens, [PAD_TOKEN, BOS_TOKEN]).any()
    levels = [set(column) for column in tokens.T.tolist()]
    assert not (levels[0] & levels[1] or levels[1] & levels[2] or levels[0] & levels[2])


def test_items_of_finds_every_item_and_nothing_else() -> None:
    ids = make()
    assert ids.items_of(CODES).tolist() == [0, 1, 2, 3]
    strangers = np.array([[[1, 1, 0], [1, 0, 1]], [[-1, 0, 0], [0, 3, 0]]])
    assert ids.items_of(strangers).tolist() == [[-1, 2], [-1, -1]]
    # (0, 3, 0) and (1, 0, 0) have one mixed-radix key; a code out of range must not pass for another item
    assert ids.items_of(np.array([0, 3, 0])) == -1


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 99))
def test_items_of_inverts_the_table(sizes: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    everything = np.stack(np.meshgrid(*[np.arange(size) for size in sizes], indexing="ij"), -1).reshape(-1, len(sizes))
    chosen = generator.permutation(len(everything))[: max(1, len(everything) // 2)]
    ids = SemanticIds(everything[chosen], tuple(sizes), len(sizes))
    expected = np.full(len(everything), -1)
    expected[chosen] = np.arange(len(chosen))
    np.testing.assert_array_equal(ids.items_of(everything), expected)


@pytest.mark.parametrize(("num_levels", "size"), [(32, 256), (7, 2**9), (3, 2**26)])
def test_ids_too_long_for_an_integer_are_found(num_levels: int, size: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, (300, num_levels))
    codes[1] = codes[0]
    codes[1, -1] = (codes[0, -1] + 1) % size  # differs in the last code alone
    ids = SemanticIds(codes, (size,) * num_levels, num_levels)
    assert ids.items_of(codes.reshape(3, 100, -1)).tolist() == np.arange(300).reshape(3, 100).tolist()
    stranger, too_large, negative = codes[0].copy(), codes[0].copy(), codes[0].copy()
    stranger[-1] = (codes[0, -1] + 2) % size
    too_large[0] += size  # the same bytes, were it cut to the width of a code
    negative[0] -= size
    assert ids.items_of(np.stack([stranger, too_large, negative])).tolist() == [-1, -1, -1]
    assert ids.items_of(codes[5]) == 5


def test_saved_ids_come_back_equal(tmp_path: Path) -> None:
    make().save(tmp_path / "ids.npz")
    loaded = SemanticIds.load(tmp_path / "ids.npz")
    np.testing.assert_array_equal(loaded.codes, CODES)
    assert loaded.codebook_sizes == (2, 3, 2) and loaded.num_content_levels == 2
    assert loaded.fingerprint == make().fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npz"]


def test_fingerprint_depends_on_codes_sizes_and_levels() -> None:
    others = [
        SemanticIds(CODES[::-1], (2, 3, 2), 2),
        SemanticIds(CODES, (2, 3, 3), 2),
        SemanticIds(CODES, (2, 3, 2), 3),
    ]
    assert len({make().fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    ("codes", "sizes", "levels", "message"),
    [
        ([[0, 0], [0, 0], [1, 0]], (2, 2), 2, "1 of 3 items share"),
        ([[0, 2]], (2, 2), 2, "0..size-1"),
        ([[0, -1]], (2, 2), 2, "0..size-1"),
        ([[0, 1]], (2,), 1, "one codebook size per level"),
        ([0, 1], (2,), 1, "items x levels"),
        ([[0, 1]], (2, 2), 3, "num_content_levels"),
        ([[0] * 32, [0] * 32], (256,) * 32, 32, "1 of 2 items share"),
    ],
)
def test_impossible_tables_are_refused(codes: list, sizes: tuple[int, ...], levels: int, message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        SemanticIds(np.array(codes), sizes, levels)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="No semantic IDs"):
        SemanticIds.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", vectors=np.zeros(3))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez(tmp_path / "twice.npz", codes=np.zeros((2, 1), int), codebook_sizes=[3], num_content_levels=1)
    for name, message in {
        "other": "not a semantic-ID file",
        "junk": "not a semantic-ID file",
        "twice": "share",
    }.items():
        with pytest.raises(GenrecError, match=message):
            SemanticIds.load(tmp_path / f"{name}.npz")


def test_repeated_ids_are_counted_however_they_are_keyed() -> None:
    for sizes in ((4, 4), (256,) * 40):
        codes = np.zeros((6, len(sizes)), dtype=np.int64)
        codes[:, 0] = [0, 1, 1, 2, 2, 2]
        with pytest.raises(GenrecError, match="3 of 6 items share"):
            SemanticIds(codes, sizes, len(sizes))
