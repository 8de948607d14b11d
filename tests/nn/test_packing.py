from __future__ import annotations

import pytest
import torch

from genrec.nn.packing import MASKED, block_diagonal, dividing_rows_of_window, pad_rows, rows_of_window


def test_windows_have_at_least_32_keys() -> None:
    assert [rows_of_window(length) for length in (4, 12, 31, 32, 80)] == [8, 3, 2, 1, 1]


@pytest.mark.parametrize(("num_rows", "expected"), [(40, 8), (39, 13), (26, 13), (10, 10), (14, 14), (37, 8), (20, 10)])
def test_a_near_divisor_is_preferred(num_rows: int, expected: int) -> None:
    assert dividing_rows_of_window(4, num_rows) == expected


def test_rows_are_padded_at_the_end() -> None:
    x = torch.ones(5, 2, 3)
    padded = pad_rows(x, 4)
    assert padded.shape == (8, 2, 3)
    assert torch.equal(padded[:5], x) and not padded[5:].any()
    assert pad_rows(x, 5) is x


@pytest.mark.parametrize("rows", [1, 6])
def test_each_row_keeps_its_bias_and_hides_the_others(rows: int) -> None:
    bias = torch.randn(rows, 2, 3, 4)
    windows = block_diagonal(bias, 3)
    assert windows.shape == (1 if rows == 1 else 2, 2, 9, 12)
    for window in range(len(windows)):
        for query in range(3):
            for key in range(3):
                block = windows[window, :, query * 3 : query * 3 + 3, key * 4 : key * 4 + 4]
                expected = bias[0 if rows == 1 else window * 3 + query]
                assert torch.equal(block, expected) if query == key else bool((block == MASKED).all())


def test_a_window_that_is_not_full_is_filled_up() -> None:
    bias = torch.randn(4, 2, 3, 4)
    windows = block_diagonal(bias, 3)
    assert windows.shape == (2, 2, 9, 12)
    assert torch.equal(windows[1, :, :3, :4], bias[3])
    assert not windows[1, :, 3:6, 4:8].any()


def test_gradient_of_a_shared_bias_is_the_sum_over_rows() -> None:
    bias = torch.randn(1, 2, 3, 4, requires_grad=True)
    block_diagonal(bias, 3).sum().backward()
    assert bias.grad is not None and torch.equal(bias.grad, torch.full((1, 2, 3, 4), 3.0))
    assert block_diagonal(bias, 1) is bias
