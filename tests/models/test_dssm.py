from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, SequenceBatch
from genrec.graph import ITEM, USER, Relation, TypedGraph
from genrec.models.dssm import DSSM, PooledNodes
from tests.models.contract import NUM_ITEMS, NUM_USERS, ROWS, RetrievalContract, histories, ring_spec

TINY: dict[str, Any] = {"embedding_dim": 16, "hidden_dims": [32], "dropout": 0.1}
TAGS = Relation(
    ITEM, "tag", np.array([4, 0, 4, 7]), np.array([1, 0, 0, 1]), np.array([1.0, 5.0, 3.0, 2.0]), ["rock", "jazz"]
)
CITIES = Relation(
    USER, "city", np.arange(0, NUM_USERS, 2), np.arange(NUM_USERS // 2) % 2, np.ones(NUM_USERS // 2), ["A", "B"]
)
FRIENDS = Relation(USER, USER, np.array([0, 1]), np.array([1, 0]), np.ones(2))


def _spec() -> DataSpec:
    spec = ring_spec()
    assert spec.train is not None
    relations = {"has_tag": TAGS, "lives_in": CITIES, "friend_of": FRIENDS}
    return replace(spec, graph=TypedGraph(spec.train, NUM_ITEMS, relations=relations))


class TestDSSM(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return DSSM(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestDSSMWithFeatures(TestDSSM):
    CHANGES: ClassVar[dict[str, Any]] = {"text": True, "loss": "listwise"}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        assert spec.train is not None
        graph = TypedGraph(spec.train, NUM_ITEMS, relations={"has_tag": TAGS, "friend_of": FRIENDS})
        return super().build(replace(spec, graph=graph), max_history)


def _model(**changes: Any) -> Any:
    torch.manual_seed(0)
    return DSSM(_spec(), **{**TINY, "max_history": 8, **changes}).eval()


def test_vectors_are_of_length_one_and_scores_are_cosines_over_the_temperature() -> None:
    model = _model(temperature=0.05)
    users, items = model.encode_users(histories(ROWS)), model.encode_items()
    torch.testing.assert_close(items.norm(dim=1), torch.ones(NUM_ITEMS))
    torch.testing.assert_close(users.norm(dim=1), torch.full((len(ROWS),), 20.0))
    found = model.recommend(histories(ROWS), 3).scores
    assert found.abs().max() <= 20.001
    assert torch.allclose(found, 2 * _model(temperature=0.1).recommend(histories(ROWS), 3).scores)


def test_a_history_never_holds_its_own_target() -> None:
    """The vector that scores a target is that of the items before it: changing the target, or what follows, is moot."""
    model = _model()
    items = torch.tensor([[3, 4, 5, 6], [3, 4, 17, 18]])
    hidden = model.read(model.table(), items, torch.tensor([4, 4]), torch.tensor([2, 2]))
    assert torch.equal(hidden[0, :2], hidden[1, :2])
    assert not torch.allclose(hidden[0, 2:], hidden[1, 2:])
    alone = model.encode_users(replace(histories([[3, 4]]), users=torch.tensor([2])))
    torch.testing.assert_close(hidden[0, 1], alone[0])


def test_features_are_the_weighted_mean_of_an_item_s_nodes() -> None:
    pool = PooledNodes(TAGS, NUM_ITEMS, 2, 5)
    rock, jazz = pool.nodes.weight
    pooled = pool()
    torch.testing.assert_close(pooled[4], (3 * rock + 1 * jazz) / 4)
    torch.testing.assert_close(pooled[0], rock)
    torch.testing.assert_close(pooled[7], jazz)
    assert not pooled[[1, 2, 3, 22]].any()


def test_items_and_users_are_read_with_their_features() -> None:
    model = _model()
    assert list(model.item_features) == ["has_tag"] and list(model.user_features) == ["lives_in"]  # friends are users
    assert model.table().shape == (NUM_ITEMS, 32)
    before, users = model.encode_items(), model.encode_users(histories(ROWS[:2]))
    with torch.no_grad():
        model.item_features["has_tag"].nodes.weight[1] += 1.0
        model.user_features["lives_in"].nodes.weight[0] += 1.0
    moved = (model.encode_items() - before).abs().sum(dim=1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [4, 7]
    moved = (model.encode_users(histories(ROWS[:2])) - users).abs().sum(dim=1) > 1e-6
    assert moved.tolist() == [True, False]  # user 0 lives there; 1 lives nowhere and met no such item
    assert not list(_model(features=False).item_features)


def test_users_who_were_not_trained_on_have_no_vector_of_their_own() -> None:
    model = _model(user_ids=True)
    batch = histories([[1, 2], [1, 2]])
    stranger = HistoryBatch(torch.tensor([IGNORE, 1]), batch.items, batch.lengths)
    before = model.encode_users(stranger)
    with torch.no_grad():
        model.users.weight += torch.randn(NUM_USERS, 16)
    after = model.encode_users(stranger)
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1])


def test_text_reaches_items_and_users() -> None:
    model = _model(text=True)
    users, items = model.encode_users(histories(ROWS)), model.encode_items()
    with torch.no_grad():
        model.text.weight += 1.0
    assert not torch.allclose(users, model.encode_users(histories(ROWS)))
    assert not torch.allclose(items, model.encode_items())
    with pytest.raises(GenrecError, match="needs item vectors"):
        DSSM(replace(_spec(), item_vectors=None), **TINY, text=True)


def test_weights_from_uninitialised_memory() -> None:
    """Two models of one seed are equal in every parameter, buffers that are not saved included."""
    one, other = _model(user_ids=True, text=True), _model(user_ids=True, text=True)
    for first, second in zip((*one.parameters(), *one.buffers()), (*other.parameters(), *other.buffers()), strict=True):
        assert torch.equal(first, second) and torch.isfinite(first.float()).all()


def test_gradients_reach_every_feature_that_is_used() -> None:
    model = _model(user_ids=True, text=True)
    batch = SequenceBatch(
        torch.tensor([0, 2]), torch.tensor([[4, 0], [1, 7]]), torch.tensor([2, 2]), torch.tensor([[5, 7], [4, 9]])
    )
    model.loss(batch).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "model.temperature=0.0: expected a number greater than 0"),
        ({"hidden_dims": 64}, "model.hidden_dims=64: expected a list"),
        ({"user_ids": "yes"}, "model.user_ids=yes: expected true or false"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _model(**changes)
