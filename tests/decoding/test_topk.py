from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import IGNORE
from genrec.decoding.topk import mask_seen, rank_items, rank_rows, stable_topk


def by_sorting(scores: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    """The reference: one full sort of every row by (score down, key up)."""
    return np.lexsort((keys, -scores), axis=1)[:, :k]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 40), st.integers(1, 6), st.booleans())
def test_equals_a_full_sort_whatever_the_ties(
    seed: int, rows: int, width: int, num_values: int, with_keys: bool
) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, num_values, (rows, width)).astype(np.float32)
    keys = random.permuted(np.tile(np.arange(width), (rows, 1)), axis=1)
    k = int(random.integers(1, width + 1))
    tie_keys = torch.from_numpy(keys) if with_keys else None
    values, columns = stable_topk(torch.from_numpy(scores), k, tie_keys)
    expected = by_sorting(scores, keys if with_keys else np.tile(np.arange(width), (rows, 1)), k)
    np.testing.assert_array_equal(columns.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(scores, expected, axis=1))


@settings(max_examples=40)
@given(
    st.integers(0, 2**31),
    st.integers(1, 2000),
    st.sampled_from([2, 30, 100_000]),
    st.sampled_from([0.0, 0.3, 0.9, 0.999]),
)
def test_wide_rows_equal_a_full_sort(seed: int, width: int, num_values: int, masked: float) -> None:
    """Rows so wide that only the blocks of columns with the largest maxima are read."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, num_values, (3, width)).astype(np.float32)
    scores[random.random(scores.shape) < masked] = -np.inf
    k = min(int(random.integers(1, 8)), width)
    values, columns = stable_topk(torch.from_numpy(scores), k)
    expected = by_sorting(scores, np.tile(np.arange(width), (3, 1)), k)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(scores, expected, axis=1))
    real = np.isfinite(values.numpy())
    np.testing.assert_array_equal(columns.numpy()[real], expected[real])


def test_minus_infinity_fills_up_after_real_scores() -> None:
    scores = torch.tensor([[-torch.inf, 1.0, -torch.inf, 2.0]])
    values, columns = stable_topk(scores, 3)
    assert columns[0, :2].tolist() == [3, 1]
    assert values[0, 2] == -torch.inf


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0], [0.0, 5.0, 5.0, 5.0]])
    together = stable_topk(scores, 2)[1]
    alone = torch.cat([stable_topk(row[None], 2)[1] for row in scores])
    assert together.tolist() == alone.tolist() == [[0, 1], [0, 1], [1, 2]]


def test_mask_seen_touches_seen_items_only() -> None:
    scores = torch.arange(8.0).view(2, 4)
    masked = mask_seen(scores, torch.tensor([[2, 2, IGNORE], [IGNORE, 0, 3]]))
    assert masked.tolist() == [[0.0, 1.0, -torch.inf, 3.0], [-torch.inf, 5.0, 6.0, -torch.inf]]
    assert scores.isfinite().all(), "the caller's scores were changed in place"


def test_rank_items_fills_with_ignore_when_k_exceeds_what_is_left() -> None:
    result = rank_items(torch.tensor([[0.5, 0.5, 0.1]]), 5, seen=torch.tensor([[2]]))
    assert result.items.tolist() == [[0, 1, IGNORE, IGNORE, IGNORE]]
    assert result.scores.tolist()[0][2:] == [-torch.inf] * 3


def test_rank_rows_leaves_shared_scores_alone_and_equals_rank_items() -> None:
    shared = torch.rand(1, 50, generator=torch.Generator().manual_seed(0))
    table = torch.rand(9, 50, generator=torch.Generator().manual_seed(1))
    kept = shared.clone(), table.clone()
    seen = torch.tensor([[3, IGNORE], [IGNORE, 7], [49, 3]])
    for score_rows in (lambda rows: shared.expand(3, -1)[rows], lambda rows: table[2:5][rows]):
        expected = rank_items(mask_seen(score_rows(slice(0, 3)), seen), 10)
        for most in (50, 100, 1000):
            found = rank_rows(score_rows, num_rows=3, num_items=50, k=10, seen=seen, max_scores=most)
            assert torch.equal(found.items, expected.items) and torch.equal(found.scores, expected.scores)
    assert torch.equal(shared, kept[0]) and torch.equal(table, kept[1])


def test_rows_that_share_their_memory_are_masked_one_by_one() -> None:
    """Part of a longer row, repeated: there is as much memory as three rows would need, yet it is one."""
    scores = torch.arange(12.0)[:4].expand(3, -1)
    found = rank_items(scores, 2, torch.tensor([[3], [2], [IGNORE]]))
    assert found.items.tolist() == [[2, 1], [3, 1], [3, 2]]
    assert scores.tolist() == [[0.0, 1.0, 2.0, 3.0]] * 3


def test_of_a_large_catalogue_many_rows_are_scored_together() -> None:
    """Each slice of rows reads the vectors of all items anew, so a few rows at a time would read them all the while."""
    slices: list[int] = []

    def score_rows(rows: slice) -> torch.Tensor:
        slices.append(rows.stop - rows.start)
        return torch.zeros(1, 1).expand(rows.stop - rows.start, 100)

    for num_items, expected in ((100, [70]), (1 << 20, [32, 32, 6]), (1 << 30, [32, 32, 6])):
        slices.clear()
        rank_rows(score_rows, num_rows=70, num_items=num_items, k=3)
        assert slices == expected
