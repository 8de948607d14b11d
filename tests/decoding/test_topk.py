from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import IGNORE
from genrec.decoding.topk import mask_seen, rank_items, stable_topk


def by_sorting(scores: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    """The reference: one full sort of every row by (score down, key up)."""
    return np.lexsort((keys, -scores), axis=1)[:, :k]


@settings(max_examples=60, deadline=None, derandomize=True)
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
