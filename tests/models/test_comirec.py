from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import IGNORE, DataSpec, GenrecError, SequenceBatch
from genrec.models.comirec import ComiRec
from tests.models.contract import NUM_ITEMS, RetrievalContract, histories, ring_spec

TINY: dict[str, Any] = {"embedding_dim": 16, "num_interests": 2, "attention_dim": 16, "dropout": 0.0}


class TestComiRec(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return ComiRec(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestComiRecInBatch(TestComiRec):
    CHANGES: ClassVar[dict[str, Any]] = {"num_interests": 3, "text": True, "loss": "in_batch"}


def _model(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = ComiRec(ring_spec(), **{**TINY, "max_history": 8, **changes}).eval()
    with torch.no_grad():
        model.distance_bias.normal_()
        model.items.weight.normal_()
    return model


def _interests(model: Any, history: list[int]) -> Tensor:
    """(K, D) by the formula, one weight after the other."""
    vectors = model.items.weight[history]
    rows = []
    for k in range(model.interests.out_features):
        logits = [
            model.interests.weight[k] @ torch.tanh(model.hidden.weight @ vector)
            + model.distance_bias[len(history) - 1 - place, k]
            for place, vector in enumerate(vectors)
        ]
        rows.append(torch.softmax(torch.stack(logits), dim=0) @ vectors)
    return torch.stack(rows).detach()


def test_interests_are_attentions_over_the_history() -> None:
    model = _model()
    for history in ([4], [3, 9, 4], [1, 2, 3, 4, 5, 6, 7, 8]):
        torch.testing.assert_close(model.encode_users(histories([history]))[0], _interests(model, history))


def test_one_pass_equals_one_history_per_target() -> None:
    model = _model()
    items = torch.tensor([[3, 4, 5, 6], [8, 9, 0, 0]])
    hidden = model.read(model.table(), items, torch.tensor([4, 2]), torch.tensor([0, 1]))
    for row, place in ((0, 0), (0, 3), (1, 1)):
        torch.testing.assert_close(hidden[row, place], _interests(model, items[row, : place + 1].tolist()))


def test_a_target_trains_the_interest_that_scores_it_best() -> None:
    model = _model(loss="full")
    items, targets = torch.tensor([[3, 9, 4], [5, 6, 7]]), [20, 1]
    scored = torch.tensor([[IGNORE, IGNORE, 20], [IGNORE, IGNORE, 1]])
    expected, chosen = [], []
    for row, target in zip(items.tolist(), targets, strict=True):
        interests = _interests(model, row)
        best = int((interests @ model.output.weight[target]).argmax())
        chosen.append(best)
        expected.append(functional.cross_entropy(model.output.weight @ interests[best], torch.tensor(target)))
    losses = model.loss(SequenceBatch(torch.arange(2), items, torch.tensor([3, 3]), scored))
    torch.testing.assert_close(losses.total, torch.stack(expected).mean())
    losses.total.backward()
    used = model.distance_bias.grad.abs().sum(dim=0) > 0
    assert used.tolist() == [k in chosen for k in range(2)]  # no gradient for an interest that was not chosen


def test_random_routing_at_inference() -> None:
    """Interests depend on the history alone: not on random numbers, the mode or the rest of the batch."""
    model = _model(dropout=0.5)
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        found.append(model.train(bool(seed)).encode_users(histories([[3, 9, 4], [1] * (seed + 1)]))[0])
    assert torch.equal(found[0], found[1])


def test_every_interest_has_its_say() -> None:
    model = _model()
    history = [3, 9, 4]
    found = model.recommend(histories([history]), NUM_ITEMS)
    products = _interests(model, history) @ model.output.weight.T
    torch.testing.assert_close(found.scores[0], products.amax(dim=0)[found.items[0]])
    assert len(set(products.argmax(dim=0).tolist())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_interests": 0}, "model.num_interests=0: expected"), ({"attention_dim": 0}, "model.attention_dim=0")],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _model(**changes)
