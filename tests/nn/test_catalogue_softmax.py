"""The cross-entropy over items scored by sums of code scores."""

import pytest
import torch
from torch.nn import functional

from genrec.nn import catalogue_softmax
from genrec.nn.catalogue_softmax import carriers_of_codes, catalogue_cross_entropy

NUM_ITEMS, NUM_LEVELS, NUM_CODES, NUM_TARGETS = 13, 3, 4, 7


@pytest.mark.parametrize("at_once", [1, 3, 128])
def test_loss_and_gradient_equal_a_plain_softmax(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(catalogue_softmax, "_AT_ONCE", at_once)
    torch.manual_seed(0)
    codes = torch.randint(NUM_CODES - 1, (NUM_ITEMS, NUM_LEVELS))  # the last code of every digit belongs to no item
    item_rows = codes + NUM_CODES * torch.arange(NUM_LEVELS)
    scores = torch.randn(NUM_LEVELS * NUM_CODES, NUM_TARGETS, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(NUM_ITEMS, (NUM_TARGETS,))
    carriers, begin = carriers_of_codes(item_rows, len(scores))
    loss = catalogue_cross_entropy(scores, item_rows, carriers, begin, targets)
    expected = functional.cross_entropy(scores[item_rows].sum(1).T, targets)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(2 * value, scores)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert not ours[NUM_CODES - 1].any()  # a code that no item has is neither pushed up nor down
    with torch.no_grad():
        torch.testing.assert_close(catalogue_cross_entropy(scores, item_rows, carriers, begin, targets), expected)


def test_carriers_list_the_items_of_every_code() -> None:
    rows = torch.tensor([[0, 3], [1, 3], [0, 5]])
    carriers, begin = carriers_of_codes(rows, 6)
    assert carriers.tolist() == [0, 2, 1, 0, 1, 2]
    assert begin.tolist() == [0, 2, 3, 3, 5, 5]
