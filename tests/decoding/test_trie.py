from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import GenrecError
from genrec.decoding.trie import Trie

CODES = np.array([[1, 0, 2], [0, 1, 1], [1, 0, 0], [1, 2, 0], [0, 1, 0]])  # five items, levels of 2, 3 and 3 codes
SIZES = (2, 3, 3)


def random_codes(seed: int, sizes: tuple[int, ...], num_items: int) -> np.ndarray:
    """``num_items`` distinct paths in random order."""
    chosen = np.random.default_rng(seed).choice(int(np.prod(sizes)), num_items, replace=False)
    return np.stack(np.unravel_index(chosen, sizes), axis=1)


def walk(trie: Trie) -> dict[tuple[int, ...], int]:
    """Every path of the trie with the item at its end, by following the flat arrays node by node."""

    def below(level: int, node: int, prefix: tuple[int, ...]) -> dict[tuple[int, ...], int]:
        if level == trie.num_levels:
            return {prefix: int(trie.items[node])}
        found: dict[tuple[int, ...], int] = {}
        for child in range(int(trie.child_start[level][node]), int(trie.child_start[level][node + 1])):
            found |= below(level + 1, child, (*prefix, int(trie.codes[level][child])))
        return found

    return below(0, 0, ())


def test_known_catalogue() -> None:
    trie = Trie.from_codes(CODES, SIZES)
    assert [codes.tolist() for codes in trie.codes] == [[0, 1], [1, 0, 2], [0, 1, 0, 2, 0]]
    assert [start.tolist() for start in trie.child_start] == [[0, 2], [0, 1, 3], [0, 2, 4, 5]]
    assert trie.items.tolist() == [4, 1, 2, 0, 3]
    assert trie.leaf_of_item.tolist() == [3, 1, 2, 4, 0]
    assert (trie.num_items, trie.num_levels, trie.num_nodes, trie.max_fan_out) == (5, 3, (2, 3, 5), (2, 2, 2))
    assert trie.mean_fan_out == (2.0, 3 / 2, 5 / 3)


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_paths_are_exactly_the_items(seed: int, sizes: list[int]) -> None:
    num_items = int(np.random.default_rng(seed).integers(1, np.prod(sizes) + 1))
    codes = random_codes(seed, tuple(sizes), num_items)
    assert walk(Trie.from_codes(codes, sizes)) == {tuple(row): item for item, row in enumerate(codes.tolist())}


def test_items_at_prefix() -> None:
    trie = Trie.from_codes(CODES, SIZES)
    assert trie.items_at([]).tolist() == [0, 1, 2, 3, 4]
    assert trie.items_at([1]).tolist() == [0, 2, 3]
    assert trie.items_at([1, 0]).tolist() == [0, 2]
    assert trie.items_at([1, 2, 0]).tolist() == [3]
    assert trie.items_at([1, 1]).tolist() == []
    assert trie.items_at([0, 1, 2]).tolist() == []
    with pytest.raises(GenrecError, match="3 codes"):
        trie.items_at([0, 1, 1, 0])


def test_leaf_range_spans_the_items_below() -> None:
    trie = Trie.from_codes(CODES, SIZES)
    begin, end = trie.leaf_range(0, torch.tensor([0, 1]))
    assert (begin.tolist(), end.tolist()) == ([0, 2], [2, 5])
    begin, end = trie.leaf_range(2, torch.tensor([3]))
    assert (begin.tolist(), end.tolist()) == ([3], [4])


def test_paths_and_children() -> None:
    trie = Trie.from_codes(CODES, SIZES)
    path = trie.path_of(torch.tensor([[3, 0], [1, 4]]))
    assert [nodes.tolist() for nodes in path] == [[[1, 1], [0, 0]], [[2, 1], [0, 0]], [[4, 3], [1, 0]]]
    for level, nodes in enumerate(path):
        assert trie.codes[level][nodes].tolist() == CODES[[[3, 0], [1, 4]], level].tolist()
    nodes, beyond = trie.children_of(1, torch.tensor([0, 1]))
    assert beyond is not None and beyond.tolist() == [[False, True], [False, False]]
    assert nodes[~beyond].tolist() == [0, 1, 2]
    nodes, beyond = trie.children_of(0, torch.zeros(3, dtype=torch.int64))
    assert beyond is None and nodes.tolist() == [[0, 1]] * 3


def test_codebooks_too_large_for_one_integer_key() -> None:
    sizes = (2**40, 2**40, 3)
    codes = np.array([[2**31 - 1, 5, 1], [7, 2**31 - 1, 0], [7, 2**31 - 1, 2]])
    assert walk(Trie.from_codes(codes, sizes)) == {tuple(row): item for item, row in enumerate(codes.tolist())}


def test_stays_within_32_bytes_an_item() -> None:
    codes = random_codes(0, (256, 256, 256, 4), 20_000)  # sparse: nearly every item has its own node at two levels
    assert Trie.from_codes(codes, (256, 256, 256, 4)).nbytes <= 32 * 20_000


def test_moving_to_the_same_device_copies_nothing() -> None:
    trie = Trie.from_codes(CODES, SIZES)
    assert trie.to("cpu") is trie
    assert trie.to("meta").items.device.type == "meta"


def test_colliding_semantic_ids_are_refused_not_counted_as_hits() -> None:
    with pytest.raises(GenrecError, match="1 of 3 items share"):
        Trie.from_codes(np.array([[0, 1], [0, 1], [1, 1]]), (2, 2))


@pytest.mark.parametrize(
    ("codes", "sizes"),
    [([[0, 2]], (2, 2)), ([[0, -1]], (2, 2)), ([[0, 1]], (2, 2, 2)), (np.zeros((0, 2), dtype=int), (2, 2))],
)
def test_codes_that_do_not_fit_are_refused(codes: object, sizes: tuple[int, ...]) -> None:
    with pytest.raises(GenrecError):
        Trie.from_codes(np.array(codes), sizes)
