from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError
from genrec.decoding.beam import beam_search
from genrec.decoding.trie import Trie


class TableModel:
    """A "model" whose next-code log-probabilities depend on the row and on the whole prefix.

    It keeps a cache of prefixes per beam and reorders it by ``parents``, so a wrong parent shows up in the scores. The
    values are multiples of 1/8: sums are exact in any order, and ties are common.
    """

    def __init__(self, seed: int, sizes: tuple[int, ...], batch_size: int, coarse: bool = True) -> None:
        random = np.random.default_rng(seed)
        self.sizes, self.coarse, self.batch_size = sizes, coarse, batch_size
        self.tables = []
        for level, size in enumerate(sizes):
            table = -random.integers(0, 24, (batch_size, int(np.prod(sizes[:level])), size)) / 8
            if not coarse:
                table = -random.random(table.shape) * 3
            self.tables.append(table.astype(np.float32))
        self.prefix = torch.zeros(0)
        self.widths: list[int] = []

    def __call__(self, level: int, previous_codes: Tensor | None, parents: Tensor | None, /) -> Tensor:
        if previous_codes is None or parents is None:
            assert level == 0
            self.prefix = torch.zeros(self.batch_size, 1, dtype=torch.int64)
        else:
            self.prefix = self.prefix.gather(1, parents) * self.sizes[level - 1] + previous_codes
        self.widths.append(self.prefix.shape[1])
        rows = torch.arange(self.batch_size)[:, None]
        return torch.from_numpy(self.tables[level])[rows, self.prefix]

    def score(self, row: int, codes: tuple[int, ...]) -> float:
        total, prefix = np.float32(0.0), 0
        for level, code in enumerate(codes):
            total += self.tables[level][row, prefix, code]
            prefix = prefix * self.sizes[level] + code
        return float(total)


def exhaustive(model: TableModel, codes: np.ndarray, k: int, seen: list[list[int]] | None) -> list[list[int]]:
    """Every item scored one by one in plain Python; score down, item up."""
    result = []
    for row in range(model.batch_size):
        hidden = set(seen[row]) if seen else set()
        scored = [
            (-model.score(row, tuple(path)), item) for item, path in enumerate(codes.tolist()) if item not in hidden
        ]
        best = [item for _, item in sorted(scored)][:k]
        result.append(best + [IGNORE] * (k - len(best)))
    return result


def python_beam(model: TableModel, codes: np.ndarray, num_beams: int) -> list[list[int]]:
    """Beam search over a trie of dictionaries, one row and one beam after the other."""
    root: dict = {}
    for item, path in enumerate(codes.tolist()):
        node = root
        for code in path[:-1]:
            node = node.setdefault(code, {})
        node[path[-1]] = item
    result = []
    for row in range(model.batch_size):
        beams = [((), root)]
        for _ in model.sizes:
            grown = [((*path, code), node[code]) for path, node in beams for code in sorted(node)]
            grown.sort(key=lambda beam: (-model.score(row, beam[0]), beam[1] if isinstance(beam[1], int) else 0))
            beams = grown[:num_beams]
        best = [item for _, item in beams]
        result.append(best + [IGNORE] * (num_beams - len(best)))
    return result


def catalogue(seed: int, sizes: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(seed)
    num_items = int(random.integers(1, min(int(np.prod(sizes)), 60) + 1))
    chosen = random.choice(int(np.prod(sizes)), num_items, replace=False)
    return np.stack(np.unravel_index(chosen, sizes), axis=1)


def padded(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [IGNORE] * (width - len(row)) for row in rows], dtype=torch.int64).view(len(rows), width)


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@settings(max_examples=80)
@given(st.integers(0, 2**31), SIZES, st.integers(1, 4), st.booleans())
def test_wide_beam_equals_exhaustive_scoring(
    seed: int, sizes: tuple[int, ...], batch_size: int, with_seen: bool
) -> None:
    codes = catalogue(seed, sizes)
    model = TableModel(seed, sizes, batch_size)
    random = np.random.default_rng(seed)
    rows = [random.integers(0, len(codes), random.integers(0, 2 * len(codes))).tolist() for _ in range(batch_size)]
    seen = rows if with_seen else None
    num_beams = len(codes) + int(random.integers(0, 3))
    result = beam_search(
        model,
        Trie.from_codes(codes, sizes),
        batch_size=batch_size,
        num_beams=num_beams,
        device="cpu",
        seen=padded(rows) if with_seen else None,
    )
    assert result.items.tolist() == exhaustive(model, codes, num_beams, seen)
    for row, items in enumerate(result.items.tolist()):
        expected = [model.score(row, tuple(codes[item])) if item != IGNORE else -np.inf for item in items]
        assert result.scores[row].tolist() == expected


@settings(max_examples=60)
@given(st.integers(0, 2**31), SIZES, st.integers(1, 7))
def test_narrow_beam_equals_a_plain_python_trie(seed: int, sizes: tuple[int, ...], num_beams: int) -> None:
    codes = catalogue(seed, sizes)
    model = TableModel(seed, sizes, batch_size=3, coarse=False)  # without ties, which Python breaks by its own rule
    result = beam_search(model, Trie.from_codes(codes, sizes), batch_size=3, num_beams=num_beams, device="cpu")
    assert result.items.tolist() == python_beam(model, codes, num_beams)


def test_one_beam_is_greedy() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    model = TableModel(0, (2, 2), 1)
    model.tables[0][:] = [[-1.0, -2.0]]
    model.tables[1][:] = [[[-9.0, -8.0], [0.0, -0.5]]]  # item 2 scores best of all, behind a worse first code
    trie = Trie.from_codes(codes, (2, 2))
    greedy = beam_search(model, trie, batch_size=1, num_beams=1, device="cpu")
    assert (greedy.items.tolist(), greedy.scores.tolist()) == ([[1]], [[-9.0]])
    assert beam_search(model, trie, batch_size=1, num_beams=2, device="cpu").items[0, 0] == 2


def test_beams_are_as_many_as_there_can_be_candidates() -> None:
    codes = np.array([[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 2, 0]])  # 2, 3 and 4 nodes; fan-outs 2, 2 and 2
    model = TableModel(0, (2, 3, 2), 2)
    beam_search(model, Trie.from_codes(codes, (2, 3, 2)), batch_size=2, num_beams=3, device="cpu")
    assert model.widths == [1, 2, 3]


def test_uneven_fan_out_never_leaves_the_trie_so_no_non_item_comes_out() -> None:
    # Each level's codes are all in use, so a mask per position would allow every combination; most are no items.
    codes = np.array([[0, 0, 0], [1, 0, 1], [1, 1, 2], [1, 2, 0], [1, 2, 1], [1, 2, 2], [2, 1, 0]])
    sizes = (3, 3, 3)
    model = TableModel(1, sizes, 4)
    for first, second, _ in codes.tolist():
        model.tables[2][:, first * 3 + second, :] -= 50.0  # every true path is made very unlikely
    result = beam_search(model, Trie.from_codes(codes, sizes), batch_size=4, num_beams=10, device="cpu")
    assert [sorted(row) for row in result.items.tolist()] == [[IGNORE] * 3 + list(range(7))] * 4
    assert result.scores[:, :7].isfinite().all() and (result.scores[:, 7:] == -torch.inf).all()


def test_everything_seen_gives_nothing() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    result = beam_search(
        TableModel(0, (2, 2), 2),
        Trie.from_codes(codes, (2, 2)),
        batch_size=2,
        num_beams=2,
        device="cpu",
        seen=torch.tensor([[0, 1, 2, 2], [1, 1, IGNORE, 1]]),
    )
    assert result.items[0].tolist() == [IGNORE, IGNORE]
    assert sorted(result.items[1].tolist()) == [0, 2]


def test_seen_items_do_not_starve_a_narrow_beam() -> None:
    """The likeliest prefixes hold seen items only; two beams still find two items, as nothing else would do."""
    codes = np.array([[a, b] for a in range(4) for b in range(2)])
    model = TableModel(0, (4, 2), 1)
    model.tables[0][:] = [[-0.0, -1.0, -2.0, -3.0]]
    model.tables[1][:] = 0.0
    result = beam_search(
        model,
        Trie.from_codes(codes, (4, 2)),
        batch_size=1,
        num_beams=2,
        device="cpu",
        seen=torch.tensor([[0, 1, 2, 3, 4]]),
    )
    assert result.items.tolist() == [[5, 6]]


def test_float_ties_go_to_the_lower_item_index() -> None:
    codes = np.array([[1, 1], [0, 0], [1, 0], [0, 1]])  # the order of the codes is not the order of the items
    model = TableModel(0, (2, 2), 1)
    for table in model.tables:
        table[:] = -0.5
    trie = Trie.from_codes(codes, (2, 2))
    assert beam_search(model, trie, batch_size=1, num_beams=4, device="cpu").items.tolist() == [[0, 1, 2, 3]]
    assert beam_search(model, trie, batch_size=1, num_beams=3, device="cpu").items.tolist() == [[0, 1, 2]]


def test_impossible_codes_produce_no_item() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    model = TableModel(0, (2, 2), 1)
    model.tables[0][:] = [[-0.5, -np.inf]]
    result = beam_search(model, Trie.from_codes(codes, (2, 2)), batch_size=1, num_beams=3, device="cpu")
    assert sorted(result.items.tolist()[0]) == [IGNORE, 0, 1]


def test_a_row_does_not_depend_on_its_batch() -> None:
    sizes = (5, 4, 3)
    codes = catalogue(7, sizes)
    trie = Trie.from_codes(codes, sizes)
    model = TableModel(7, sizes, 6)
    together = beam_search(model, trie, batch_size=6, num_beams=5, device="cpu")
    for row in range(6):
        alone = TableModel(7, sizes, 6)
        alone.tables = [table[row : row + 1] for table in alone.tables]
        alone.batch_size = 1
        single = beam_search(alone, trie, batch_size=1, num_beams=5, device="cpu")
        assert torch.equal(single.items[0], together.items[row])
        assert torch.equal(single.scores[0], together.scores[row])


def test_no_beams_is_a_mistake() -> None:
    with pytest.raises(GenrecError, match="num_beams must be 1"):
        beam_search(
            TableModel(0, (2,), 1), Trie.from_codes(np.array([[0]]), (2,)), batch_size=1, num_beams=0, device="cpu"
        )
