"""An explanation adds up to the score, names real neighbours, and what it names matters more than chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from genrec.contracts import DataSpec, GenrecError, HistoryBatch
from genrec.data.ragged import Ragged
from genrec.explanations import Explainer, Link
from genrec.graph import ITEM, USER, Relation, TypedGraph
from genrec.losses import InBatchSoftmax
from genrec.models.bpr_mf import BPRMF
from genrec.models.gat import GAT
from genrec.models.lightgcn import LightGCN, XSimGCL

ROWS = [[0, 1, 2], [2, 3], [0, 4, 5, 1], [5], [3, 4]]
NUM_ITEMS = 7
KINDS = [GAT, LightGCN, XSimGCL]


def spec() -> DataSpec:
    tags = Relation(ITEM, "tag", np.array([0, 1, 1, 5]), np.array([0, 0, 1, 1]), np.ones(4), ["rock", "jazz"])
    friends = Relation(USER, USER, np.array([0, 2]), np.array([2, 0]), np.ones(2))
    train = Ragged.from_rows(ROWS)
    graph = TypedGraph(train, NUM_ITEMS, None, {"has_tag": tags, "friend_of": friends})
    return DataSpec(num_users=len(ROWS), num_items=NUM_ITEMS, train=train, graph=graph)


def build(kind: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    model = kind(spec(), embedding_dim=8, init_std=1.0, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_own_part_and_neighbours_add_up_to_the_score(kind: Any, num_layers: int) -> None:
    model = build(kind, num_layers=num_layers)
    users, items = (each.detach() for each in model.eval().vectors())
    explainer = Explainer(model)
    for user in range(len(ROWS)):
        for item in (0, 3, 6):
            found = explainer.explain(user, item, max_evidence=100)
            assert found.score == pytest.approx(float(users[user] @ items[item]), abs=1e-5)
            total = found.own + sum(each.contribution for each in found.evidence)
            assert total == pytest.approx(found.score, abs=1e-4)
            met = {each.node for each in found.evidence if each.kind == ITEM}
            assert met == set(ROWS[user])
            contributions = [each.contribution for each in found.evidence]
            assert contributions == sorted(contributions, reverse=True)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_one_that_is_recommended(kind: Any, cosine: bool) -> None:
    """Fault of an earlier version: the explained score was the product of vectors that the loss scales."""
    model = build(kind, loss=InBatchSoftmax(cosine=cosine, temperature=0.1))
    lists = model.recommend(HistoryBatch(torch.tensor([2]), torch.zeros(1, 1).long(), torch.zeros(1).long()), 3)
    explainer = Explainer(model)
    for item, score in zip(lists.items[0].tolist(), lists.scores[0].tolist(), strict=True):
        found = explainer.explain(2, item, max_evidence=100)
        assert found.score == pytest.approx(score, rel=1e-4)
        assert found.own + sum(each.contribution for each in found.evidence) == pytest.approx(score, rel=1e-3)


def test_fidelity_asks_about_the_item_that_is_recommended() -> None:
    """An item of long vectors has the largest product, and not the largest cosine."""
    model = build(LightGCN, loss=InBatchSoftmax(cosine=True, temperature=0.1))
    with torch.no_grad():
        model.nodes.weight[len(ROWS) + 6] *= 100.0  # nobody met it: its cosine stays what it was
    batch = HistoryBatch(torch.tensor([2]), torch.zeros(1, 1).long(), torch.zeros(1).long())
    best = int(model.recommend(batch, 1).items[0, 0])
    raw = model.eval().vectors()
    assert best != int((raw[1] @ raw[0][2]).argmax())
    asked = []
    explainer = Explainer(model)
    explain = explainer.explain
    explainer.explain = lambda user, item, **options: asked.append(item) or explain(user, item, **options)
    explainer.fidelity([2], max_evidence=1)
    assert asked == [best]


def test_friends_are_named_as_friends() -> None:
    found = Explainer(build(GAT)).explain(0, 4, max_evidence=100)
    assert {(each.relation, each.kind, each.node) for each in found.evidence} == {
        *(("interacts", ITEM, item) for item in ROWS[0]),
        ("friend_of", USER, 2),
    }


def test_links_are_what_both_ends_stand_beside() -> None:
    explainer = Explainer(build(GAT))
    evidence = {(each.kind, each.node): each for each in explainer.explain(0, 5, max_evidence=9).evidence}
    beside_1 = {(link.kind, link.node) for link in evidence[ITEM, 1].links}
    assert beside_1 == {("tag", 1), (USER, 2)}  # jazz, and user 2 who met both; user 0 asks
    assert {(link.kind, link.node) for link in evidence[ITEM, 2].links} == set()
    friend = evidence[USER, 2].links
    assert Link(ITEM, 5, friend[0].weight) in friend  # the friend met it
    for each in evidence.values():
        weights = [link.weight for link in each.links]
        assert weights == sorted(weights, reverse=True) and all(0 < weight <= 1 for weight in weights)


def test_shares_are_of_what_speaks_for_the_item() -> None:
    found = Explainer(build(LightGCN)).explain(2, 3, max_evidence=100)
    shares = [found.share(each) for each in found.evidence]
    support = max(found.own, 0.0) + sum(max(each.contribution, 0.0) for each in found.evidence)
    positive = sum(share for share in shares if share > 0) + max(found.own, 0.0) / support
    assert positive == pytest.approx(1.0)


def test_a_share_does_not_grow_because_fewer_neighbours_are_named() -> None:
    explainer = Explainer(build(LightGCN))
    all_of_them, one = (explainer.explain(2, 3, max_evidence=count) for count in (100, 1))
    assert len(all_of_them.evidence) > len(one.evidence) == 1
    assert one.share(one.evidence[0]) == pytest.approx(all_of_them.share(all_of_them.evidence[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_without_edges_has_none_of_their_messages_and_the_model_keeps_its_own(kind: Any) -> None:
    model = build(kind).eval()
    before = [each.clone() for each in model.vectors()]
    other = model.without({(USER, "interacts", ITEM): np.array([0, 2])})  # user 0's items 0 and 2
    own, parts = other.messages_to(0)
    heard = {(part.kind, int(node)) for part in parts for node in part.nodes if part.kind == ITEM}
    assert heard == {(ITEM, 1)}
    total = own + sum(part.vectors.sum(0) for part in parts)
    torch.testing.assert_close(total, other.vectors()[0][0])
    assert all(torch.equal(*pair) for pair in zip(before, model.vectors(), strict=True))
    assert not torch.equal(before[0][0], other.vectors()[0][0])


def test_removing_the_named_edges_lowers_the_score_more_than_removing_random_ones() -> None:
    """Users of one of two worlds with a stray item each: the trained model must lean on the world's items."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        world = user % 2
        rows.append(
            [*(10 * world + rng.permutation(10)[:6]), 20 + rng.integers(10), 10 * (1 - world) + rng.integers(10)]
        )
    train = Ragged.from_rows(rows)
    torch.manual_seed(0)
    model = LightGCN(DataSpec(60, 30, train=train, graph=TypedGraph(train, 30)), embedding_dim=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    from genrec.data.graph import Observed, PairPlan

    for epoch in range(60):
        plan = PairPlan(
            train, Observed(train, 30), num_negatives=1, sampling="uniform", batch_size=512, seed=0, epoch=epoch
        )
        optimizer.zero_grad()
        model.train().loss(plan[0]).total.backward()
        optimizer.step()
    found = Explainer(model).fidelity(range(60), max_evidence=3, masked=rows)
    assert found["users"] == 60
    assert found["named"] > 1.3 * found["random"] and found["better"] > 0.75


def test_a_model_without_messages_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"BPRMF passes no messages.*model=gat or model=lightgcn"):
        Explainer(build(BPRMF))


def test_a_user_who_was_not_trained_on_has_no_reasons_to_name() -> None:
    train = Ragged.from_rows([*ROWS, []])
    model = LightGCN(DataSpec(6, NUM_ITEMS, train=train), embedding_dim=8)
    with pytest.raises(GenrecError, match="no training interactions"):
        Explainer(model).explain(5, 0)
