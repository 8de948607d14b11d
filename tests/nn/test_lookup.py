from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from genrec.nn.lookup import look_up


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (0, 3), (2, 3, 4)])
def test_values_and_gradients_are_those_of_torch(shape, dtype):
    torch.manual_seed(0)
    rows = torch.randint(6, shape, dtype=dtype)
    table = torch.randn(6, 16, requires_grad=True)
    weights = torch.randn(*shape, 16)
    found, expected = look_up(rows, table), functional.embedding(rows, table)
    assert torch.equal(found, expected)
    (ours,) = torch.autograd.grad((found * weights).sum(), table)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), table)
    torch.testing.assert_close(ours, theirs)


def test_a_row_that_is_fetched_often_gets_the_sum():
    table = torch.zeros(3, 2, requires_grad=True)
    look_up(torch.tensor([1, 1, 1, 0]), table).sum().backward()
    assert table.grad is not None and table.grad.tolist() == [[1, 1], [3, 3], [0, 0]]


def test_sparse_gradients_hold_the_rows_of_the_batch_only():
    table = torch.zeros(9, 2, requires_grad=True)
    look_up(torch.tensor([4, 4, 7]), table, sparse=True).sum().backward()
    assert table.grad is not None and table.grad.is_sparse
    assert table.grad.coalesce().indices().tolist() == [[4, 7]]


def test_without_gradients_nothing_is_kept():
    table = torch.randn(4, 2)
    assert look_up(torch.tensor([3]), table).grad_fn is None
    with torch.inference_mode():
        assert torch.equal(look_up(torch.tensor([3]), table.requires_grad_()), table[3:4])
