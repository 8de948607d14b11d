from __future__ import annotations

import pytest
import torch

from genrec.nn import tree
from genrec.nn.tree import child_logits, logits_of_children, sums_below

# Six leaves below three nodes: 0 has leaves 0 to 2, 1 has leaf 3, 2 has leaves 4 and 5.
FIRST_LEAF = torch.tensor([0, 3, 4])
NODE_OF_LEAF = torch.tensor([0, 0, 0, 1, 2, 2])
CHILD_START = torch.tensor([0, 3, 4, 6])


@pytest.fixture(params=["filled up", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of multiplying: families filled up to the largest, and each where it stands."""
    monkeypatch.setattr(tree, "_LARGE_FAMILY", 2 if request.param == "one by one" else 3)


def test_sums_and_their_gradient():
    leaves = torch.arange(12.0, dtype=torch.float64).view(6, 2).requires_grad_()
    sums = sums_below(leaves, FIRST_LEAF, NODE_OF_LEAF)
    assert sums.tolist() == [[0 + 2 + 4, 1 + 3 + 5], [6, 7], [8 + 10, 9 + 11]]
    sums.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64))
    assert leaves.grad is not None
    assert leaves.grad.tolist() == [[1, 2]] * 3 + [[3, 4]] + [[5, 6]] * 2


@pytest.mark.parametrize("num_queries", [1, 7, 50])  # fewer and more than fit into one block
@pytest.mark.usefixtures("way")
def test_products_with_the_children_equal_one_by_one(num_queries):
    generator = torch.Generator().manual_seed(num_queries)
    queries = torch.randn(num_queries, 4, generator=generator)
    parents = torch.randint(3, (num_queries,), generator=generator)
    vectors, biases = torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator)
    found = child_logits(queries, parents, CHILD_START, vectors, biases, fan_out=3)
    for query, parent, row in zip(queries, parents.tolist(), found, strict=True):
        children = range(CHILD_START[parent], CHILD_START[parent + 1])
        expected = [float(vectors[child] @ query + biases[child]) for child in children]
        assert row[: len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
        assert row[len(expected) :].tolist() == [-torch.inf] * (3 - len(expected))


@pytest.mark.usefixtures("way")
def test_gradients_equal_those_of_a_gather():
    generator = torch.Generator().manual_seed(0)
    parents = torch.randint(3, (20,), generator=generator)
    leaves = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((20, 4), (6, 4), (6,))
    ]
    weight = torch.randn(20, 3, generator=generator)
    places = (CHILD_START[parents, None] + torch.arange(3)).clamp(max=5)
    visible = CHILD_START[parents, None] + torch.arange(3) < CHILD_START[parents + 1, None]

    def gathered(queries, vectors, biases):
        return (queries[:, None] * vectors[places]).sum(-1) + biases[places]

    found: list[list[torch.Tensor | None]] = []
    for make in (gathered, lambda q, v, b: child_logits(q, parents, CHILD_START, v, b, 3)):
        (make(*leaves).masked_fill(~visible, 0.0) * weight).sum().backward()
        found.append([leaf.grad for leaf in leaves])
        for leaf in leaves:
            leaf.grad = None
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("num_queries", [1, 7, 50])
def test_scores_for_decoding_equal_those_of_training(num_queries):
    generator = torch.Generator().manual_seed(num_queries)
    queries = torch.randn(num_queries, 4, generator=generator)
    parents = torch.randint(3, (num_queries,), generator=generator)
    vectors, biases = torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator)
    found = logits_of_children(queries, parents, CHILD_START, vectors, biases, fan_out=3)
    expected = child_logits(queries, parents, CHILD_START, vectors, biases, fan_out=3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found[parents == 1][:, 1:] == -torch.inf).all()  # an only child
