from __future__ import annotations

import numpy as np
import pytest
import torch

from genrec.nn.propagation import SymmetricMatrix, normalised_adjacency

USERS = np.array([0, 0, 1, 2, 2, 2])
ITEMS = np.array([0, 1, 1, 0, 1, 3])


def dense(matrix: SymmetricMatrix) -> torch.Tensor:
    return matrix(torch.eye(matrix.size))


def test_edges_are_divided_by_the_root_of_both_degrees() -> None:
    expected = torch.zeros(7, 7)
    user_degrees, item_degrees = {0: 2, 1: 1, 2: 3}, {0: 2, 1: 3, 3: 1}
    for user, item in zip(USERS.tolist(), ITEMS.tolist(), strict=True):
        weight = (user_degrees[user] * item_degrees[item]) ** -0.5
        expected[user, 3 + item] = expected[3 + item, user] = weight
    torch.testing.assert_close(dense(normalised_adjacency(USERS, ITEMS, 3, 4)), expected)


def test_the_gradient_is_that_of_the_dense_product() -> None:
    matrix = normalised_adjacency(USERS, ITEMS, 3, 4).double()
    matrix.offsets, matrix.columns = matrix.offsets.int(), matrix.columns.int()
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: matrix(matrix(value)), (x,))


def test_equal_places_are_summed_and_nothing_is_saved() -> None:
    rows = np.array([0, 1, 0, 1])
    matrix = SymmetricMatrix(rows, rows[::-1].copy(), np.ones(4), 2)
    torch.testing.assert_close(dense(matrix), torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    assert not matrix.state_dict()


@pytest.mark.parametrize("width", [1, 3, 64])
def test_autocast_does_not_narrow_it(width: int) -> None:
    matrix = normalised_adjacency(USERS, ITEMS, 3, 4)
    x = torch.randn(7, width)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = matrix(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dense(matrix) @ x)
