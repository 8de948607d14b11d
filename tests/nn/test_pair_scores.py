from __future__ import annotations

import torch

from genrec.nn.pair_scores import pair_scores


def test_scores_and_gradients_are_those_of_gathered_rows() -> None:
    torch.manual_seed(0)
    first = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    second = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    rows, columns = torch.randint(7, (20,)), torch.randint(9, (20, 3))
    assert torch.autograd.gradcheck(lambda a, b: pair_scores(a, b, rows, columns), (first, second))
    expected = (first[rows][:, None] * second[columns]).sum(-1)
    torch.testing.assert_close(pair_scores(first, second, rows, columns), expected)


def test_many_pairs_go_in_parts() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(50, 64, requires_grad=True), torch.randn(40, 64, requires_grad=True)
    rows, columns = torch.randint(50, (6000,)), torch.randint(40, (6000, 4))
    found, expected = pair_scores(first, second, rows, columns), (first[rows][:, None] * second[columns]).sum(-1)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(6000, 4)
    got, wanted = (torch.autograd.grad((each * weights).sum(), (first, second)) for each in (found, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
