from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genrec.contracts import IGNORE
from genrec.decoding.trie import Trie
from genrec.decoding.unconstrained import Beams, illegal_share, items_of, unconstrained_beams
from genrec.semantic_ids import SemanticIds


class PrefixScores:
    """Log-probabilities that depend on the prefix, followed through ``parents``."""

    def __init__(self, sizes: tuple[int, ...], batch_size: int) -> None:
        random = np.random.default_rng(0)
        self.sizes, self.batch_size = sizes, batch_size
        self.tables = [
            torch.from_numpy(random.normal(size=(batch_size, int(np.prod(sizes[:level])), size)).astype(np.float32))
            for level, size in enumerate(sizes)
        ]
        self.prefix = torch.zeros(batch_size, 1, dtype=torch.int64)

    def __call__(self, level: int, previous_codes: Tensor | None, parents: Tensor | None, /) -> Tensor:
        if previous_codes is not None and parents is not None:
            self.prefix = self.prefix.gather(1, parents) * self.sizes[level - 1] + previous_codes
        return self.tables[level][torch.arange(self.batch_size)[:, None], self.prefix]


def test_wide_beams_equal_scoring_every_sequence() -> None:
    sizes = (3, 2, 4)
    model = PrefixScores(sizes, 2)
    beams = unconstrained_beams(model, sizes, batch_size=2, num_beams=24, device="cpu")
    for row in range(2):
        first, second, third = (table[row].numpy() for table in model.tables)
        every = first.reshape(3, 1, 1) + second.reshape(3, 2, 1) + third.reshape(3, 2, 4)
        order = np.argsort(-every.ravel())
        assert beams.codes[row].tolist() == np.stack(np.unravel_index(order, sizes), axis=1).tolist()
        np.testing.assert_allclose(beams.scores[row].numpy(), every.ravel()[order], rtol=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_look_up_agrees_with_the_table(seed: int, sizes: list[int]) -> None:
    total = int(np.prod(sizes))
    random = np.random.default_rng(seed)
    chosen = random.choice(total, int(random.integers(1, total + 1)), replace=False)
    codes = np.stack(np.unravel_index(chosen, sizes), axis=1)
    every = np.stack(np.unravel_index(np.arange(total), sizes), axis=1)
    found = items_of(Trie.from_codes(codes, sizes), torch.from_numpy(every))
    expected = SemanticIds(codes, tuple(sizes), num_content_levels=len(sizes)).items_of(every)
    assert found.tolist() == expected.tolist()


def test_illegal_share_counts_beams_that_name_no_item() -> None:
    trie = Trie.from_codes(np.array([[0, 0], [1, 1]]), (2, 2))
    codes = torch.tensor([[[0, 0], [0, 1], [1, 1], [1, 0]]])
    assert items_of(trie, codes).tolist() == [[0, IGNORE, 1, IGNORE]]
    assert illegal_share(Beams(codes, torch.zeros(1, 4)), trie) == 1 / 2
    assert illegal_share(Beams(codes, torch.tensor([[0.0, 0.0, 0.0, -torch.inf]])), trie) == 1 / 3
