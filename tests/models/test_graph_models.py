"""BPR-MF, LightGCN, XSimGCL and GAT: against torch-geometric, sums by hand, and what recommendation promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, PairBatch, SequenceBatch
from genrec.data.ragged import Ragged
from genrec.graph import ITEM, USER, Relation, TypedGraph, both_ways
from genrec.losses import BPR, FullCrossEntropy, InBatchSoftmax, SampledSoftmax
from genrec.models.bpr_mf import BPRMF
from genrec.models.gat import GAT
from genrec.models.lightgcn import LightGCN, XSimGCL, info_nce

ROWS = [[0, 1, 2], [2, 3], [0, 4, 5, 1], [5], [3, 4]]
NUM_ITEMS = 7
TAGS = Relation(
    ITEM, "tag", np.array([0, 1, 1, 5]), np.array([0, 0, 1, 1]), np.array([3.0, 1.0, 2.0, 5.0]), ["rock", "jazz"]
)
FRIENDS = Relation(USER, USER, np.array([0, 1, 3, 4]), np.array([1, 0, 4, 3]), np.ones(4))
MODELS = [BPRMF, LightGCN, XSimGCL, GAT]


def spec() -> DataSpec:
    train = Ragged.from_rows(ROWS)
    graph = TypedGraph(train, NUM_ITEMS, np.arange(1.0, 13.0), {"has_tag": TAGS, "friend_of": FRIENDS})
    return DataSpec(num_users=len(ROWS), num_items=NUM_ITEMS, train=train, graph=graph)


def build(kind: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return kind(spec(), **{"embedding_dim": 8, **options})


def batch(negatives: int = 2) -> PairBatch:
    rng = np.random.default_rng(0)
    users, items = torch.tensor([0, 2, 2, 4]), torch.tensor([1, 4, 0, 3])
    return PairBatch(users, items, torch.from_numpy(rng.integers(6, 7, size=(4, negatives))))


def history(users: list[int], seen: Tensor | None = None) -> HistoryBatch:
    rows = Ragged.from_rows([ROWS[user] if user >= 0 else [2, 6] for user in users])
    return HistoryBatch(torch.tensor(users), torch.from_numpy(rows.padded(0)), torch.from_numpy(rows.lengths), seen)


# ---- what all of them promise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_recommendations_are_the_best_products_of_final_vectors(kind: Any) -> None:
    model = build(kind).eval()
    users, items = model.vectors()
    found = model.recommend(history([3, 0]), 4)
    best = (users[[3, 0]] @ items.T).topk(4)
    assert torch.equal(found.items, best.indices)
    torch.testing.assert_close(found.scores, best.values)


@pytest.mark.parametrize("kind", MODELS)
def test_items_that_were_seen_are_left_out(kind: Any) -> None:
    seen = torch.tensor([[0, 1, 2, IGNORE], [5, IGNORE, IGNORE, IGNORE]])
    found = build(kind).eval().recommend(history([0, 3], seen), NUM_ITEMS)
    assert set(found.items[0].tolist()) == {3, 4, 5, 6, IGNORE}
    assert set(found.items[1].tolist()) == {0, 1, 2, 3, 4, 6, IGNORE}


@pytest.mark.parametrize("kind", MODELS)
def test_a_user_who_is_not_in_the_data_is_the_mean_of_the_items(kind: Any) -> None:
    model = build(kind).eval()
    _, items = model.vectors()
    found = model.recommend(history([IGNORE, 1]), NUM_ITEMS)
    scores = items @ items[[2, 6]].mean(0)
    torch.testing.assert_close(found.scores[0], scores.sort(descending=True).values)
    assert torch.equal(found.items[1], model.recommend(history([1]), NUM_ITEMS).items[0])


@pytest.mark.parametrize("kind", MODELS)
def test_a_user_without_training_edges_is_the_mean_of_the_items_too(kind: Any) -> None:
    """Otherwise a split by time would score new users by the random vectors that training began with."""
    train = Ragged.from_rows([*ROWS, []])
    torch.manual_seed(0)
    new = DataSpec(num_users=6, num_items=NUM_ITEMS, train=train, graph=TypedGraph(train, NUM_ITEMS))
    model = kind(new, embedding_dim=8).eval()
    batch = HistoryBatch(torch.tensor([5]), torch.tensor([[2, 6]]), torch.tensor([2]))
    _, items = model.vectors()
    found = model.recommend(batch, NUM_ITEMS)
    torch.testing.assert_close(found.scores[0], (items @ items[[2, 6]].mean(0)).sort(descending=True).values)


@pytest.mark.parametrize("kind", MODELS)
def test_double_precision_recommends(kind: Any) -> None:
    model = build(kind).double().eval()
    assert model.recommend(history([0, 1]), 3).scores.dtype == torch.float64


@pytest.mark.parametrize("kind", MODELS)
def test_final_vectors_follow_a_fused_step(kind: Any) -> None:
    """A fused optimizer does not count up a tensor's version: vectors kept by it would be those before training."""
    model = build(kind)
    before = model.eval().recommend(history([0, 1]), 3).scores
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5, fused=True)
    model.train().loss(batch()).total.backward()
    optimizer.step()
    after = model.eval().recommend(history([0, 1]), 3).scores
    users, items = model.vectors()
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, (users[:2] @ items.T).topk(3).values)


@pytest.mark.parametrize("kind", MODELS)
def test_training_lowers_the_loss(kind: Any) -> None:
    model = build(kind, l2=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        found = model.train().loss(batch())
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(found.total.item())
    assert found.count == 4 and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", MODELS)
def test_weights_survive_a_checkpoint(kind: Any) -> None:
    model, other = build(kind), build(kind, seed=1)
    other.load_state_dict(model.state_dict())
    first, second = (each.eval().recommend(history([0, 2]), 5) for each in (model, other))
    assert torch.equal(first.items, second.items) and torch.equal(first.scores, second.scores)


@pytest.mark.parametrize("kind", MODELS)
def test_the_validation_loss_is_that_of_targets_beside_other_items(kind: Any) -> None:
    model = build(kind, l2=0.0).eval()
    items = torch.tensor([[0, 1, 2], [2, 3, 0]])
    targets = torch.tensor([[IGNORE, IGNORE, 6], [IGNORE, 5, IGNORE]])
    rows = SequenceBatch(torch.tensor([0, 1]), items, torch.tensor([3, 2]), targets)
    pairs = model._as_pairs(rows)
    assert pairs.users.tolist() == [0, 1] and pairs.positives.tolist() == [6, 5]
    assert not (pairs.negatives == pairs.positives[:, None]).any()
    torch.manual_seed(5)
    found = model.loss(rows)
    torch.manual_seed(5)
    assert found.count == 2 and torch.equal(found.total, model.loss(model._as_pairs(rows)).total)


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_bpr_by_hand() -> None:
    met, unmet = torch.tensor([2.5]), torch.tensor([[1.0, 4.0]])
    expected = np.mean([np.log1p(np.exp(1.0 - 2.5)), np.log1p(np.exp(4.0 - 2.5))])
    assert BPR(count=2).of_scores(met, unmet).item() == pytest.approx(expected, rel=1e-6)
    hardest = BPR(count=1, candidates=2)
    assert hardest.num_negatives == 2
    assert hardest.of_scores(met, unmet).item() == pytest.approx(np.log1p(np.exp(1.5)), rel=1e-6)


def test_bpr_infinite_at_score_difference_200() -> None:
    met = torch.tensor([-100.0], requires_grad=True)
    loss = BPR().of_scores(met, torch.tensor([[100.0]]))
    loss.backward()
    assert loss.item() == 200.0 and met.grad is not None and met.grad.item() == -1.0


def test_in_batch_softmax_by_hand() -> None:
    """Three rows whose targets are items 2, 0 and 2, corrected by how often each is met: for the second row item 2 is a
    negative twice, for the others item 0 is the only one."""
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    table, counts = torch.tensor([[2.0, 0.0], [9.0, 9.0], [0.0, 1.0]]), torch.tensor([3.0, 5.0, 2.0])
    scores = np.array([[2.0, 0.0], [0.0, 1.0], [2.0, 1.0]]) / 0.5 - np.log([0.3, 0.2])
    scores[1, 1] += np.log(2)
    rows = [1, 0, 1]
    expected = np.mean([np.log(np.exp(row).sum()) - row[place] for row, place in zip(scores, rows, strict=True)])
    found = InBatchSoftmax(temperature=0.5)(hidden, table, torch.tensor([2, 0, 2]), counts)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    flat = InBatchSoftmax(cosine=True, logq=False)(hidden, 7 * table, torch.tensor([2, 0, 2]), counts)
    unit = functional.normalize(hidden, dim=1) @ functional.normalize(table[[0, 2]], dim=1).T
    torch.testing.assert_close(flat, functional.cross_entropy(unit, torch.tensor(rows)))


@pytest.mark.parametrize("loss", [FullCrossEntropy(), InBatchSoftmax(), SampledSoftmax(num_negatives=3)])
def test_losses_over_items_serve_as_well(loss: Any) -> None:
    model = build(LightGCN, loss=loss, l2=0.0)
    assert model.pair_loss.num_negatives == 0
    users, items = model.vectors()
    torch.manual_seed(0)
    found = model.loss(batch(negatives=0)).total
    torch.manual_seed(0)
    given = batch()
    known = (given.users,) if isinstance(loss, InBatchSoftmax) else ()  # whose other targets are no negatives
    expected = loss(users[given.users], items, given.positives, model.counts, *known)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, expected)


def test_l2_is_that_of_the_embeddings_of_a_pair() -> None:
    model, given = build(LightGCN, l2=0.1), batch()
    users, items = model.nodes.weight[:5], model.nodes.weight[5:]
    norms = users[given.users].square().sum() + items[given.positives].square().sum()
    norms = norms + items[given.negatives].square().sum(dim=2).mean(dim=1).sum()
    found = model.loss(given)
    torch.testing.assert_close(found.parts["l2"], (0.05 * norms / 4).detach())
    torch.testing.assert_close(found.total, build(LightGCN, l2=0.0).loss(given).total + 0.05 * norms / 4)


# ---- LightGCN and XSimGCL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
def test_lightgcn_is_torch_geometric_s(num_layers: int) -> None:
    from torch_geometric.nn.models import LightGCN as Reference

    model = build(LightGCN, num_layers=num_layers)
    reference = Reference(num_nodes=len(ROWS) + NUM_ITEMS, embedding_dim=8, num_layers=num_layers)
    reference.load_state_dict({**reference.state_dict(), "embedding.weight": model.nodes.weight.detach()})
    train = Ragged.from_rows(ROWS)
    forward = torch.from_numpy(np.stack([train.row_of_value, train.values + len(ROWS)]))
    edges = torch.cat([forward, forward.flip(0)], dim=1)
    expected = reference.get_embedding(edges)
    torch.testing.assert_close(torch.cat(model.vectors()), expected)
    model.loss(batch()).total.backward()
    given = batch()
    users, items = expected[given.users], expected[len(ROWS) :]
    scores = (users * items[given.positives]).sum(1)[:, None] - torch.einsum(
        "bd,bnd->bn", users, items[given.negatives]
    )
    nodes = reference.embedding.weight
    pair = nodes[given.users].square().sum() + nodes[5:][given.positives].square().sum()
    pair = pair + nodes[5:][given.negatives].square().sum() / 2
    (functional.softplus(-scores).mean() + 0.5e-4 * pair / 4).backward()
    torch.testing.assert_close(model.nodes.weight.grad, nodes.grad)


def test_xsimgcl_without_noise_contrasts_layers_of_lightgcn() -> None:
    model = build(XSimGCL, noise=0.0, num_layers=2, contrast_weight=0.5, l2=0.0)
    first = model.adjacency(model.nodes.weight)
    final = (first + model.adjacency(first)) / 2
    torch.testing.assert_close(torch.cat(model.vectors()), final)
    given = batch()
    of_users, of_items = given.users.unique(), 5 + given.positives.unique()
    contrast = info_nce(final[of_users], first[of_users], 0.15) + info_nce(final[of_items], first[of_items], 0.15)
    found = model.train().loss(given)
    torch.testing.assert_close(found.parts["contrast"], contrast.detach())
    torch.testing.assert_close(found.total, found.parts["ranking"] + 0.5 * contrast)


def test_info_nce_by_hand() -> None:
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    cosines = np.array([[1.0, 0.5**0.5], [0.0, 0.5**0.5]]) / 0.5
    expected = np.mean([np.log(np.exp(cosines[i]).sum()) - cosines[i, i] for i in range(2)])
    assert info_nce(first, second, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_noise_has_its_length_and_stays_in_the_orthant() -> None:
    model = build(XSimGCL, noise=0.3, num_layers=1)
    clean, (noisy, _) = model._layers(noise=0.0)[0], model._layers(noise=0.3)
    met = clean.norm(dim=1) > 0
    torch.testing.assert_close((noisy - clean)[met].norm(dim=1), torch.full((int(met.sum()),), 0.3))
    assert bool(((noisy - clean) * clean >= 0).all())


# ---- GAT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
def test_without_relations_training_begins_at_lightgcn(num_layers: int) -> None:
    model = build(GAT, num_layers=num_layers, relations=False).eval()
    light = build(LightGCN, num_layers=num_layers)
    light.load_state_dict({"nodes.weight": model.nodes.weight})
    torch.testing.assert_close(torch.cat(model.vectors()), torch.cat(light.vectors()))


def test_attention_returned_as_none() -> None:
    """It is returned, for every layer and edge type, and adds up to 1 at every node that hears anything."""
    model = randomised(build(GAT, num_layers=2))
    attention: list[Any] = []
    model.run(model.tables(), model.edges(), attention)
    assert len(attention) == 2
    for layer in attention:
        assert set(layer) == set(both_ways(model.graph))
        for index, weights in layer.values():
            sums = torch.zeros(int(index[1].max()) + 1).index_add_(0, index[1], weights)
            torch.testing.assert_close(sums[index[1]], torch.ones(len(weights)))
            assert weights.std() > 0 or len(weights.unique()) == 1


def randomised(model: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def test_held_out_of_reach_stays_untouched() -> None:
    """Vectors depend on neighbours through edges only: item 6 has none, so nobody hears of it."""
    model = randomised(build(GAT))
    before = model.vectors()
    with torch.no_grad():
        model.nodes.weight[len(ROWS) + 6] += 1.0
    after = model.vectors()
    assert torch.equal(before[0], after[0]) and torch.equal(before[1][:6], after[1][:6])
    assert not torch.equal(before[1][6], after[1][6])


def test_relations_reach_users_and_items() -> None:
    model = randomised(build(GAT, num_layers=1))
    before = model.vectors()
    with torch.no_grad():
        model.others["of_tag"].weight[0] += 1.0
    users, items = model.vectors()
    changed = (items - before[1]).abs().sum(1) > 0
    assert changed.tolist() == [True, True, False, False, False, False, False] and torch.equal(users, before[0])


def test_text_moves_items_and_the_users_who_chose_them() -> None:
    vectors = np.random.default_rng(0).standard_normal((NUM_ITEMS, 5)).astype(np.float32)
    torch.manual_seed(0)
    model = GAT(replace(spec(), item_vectors=vectors), embedding_dim=8, text=True, relations=False, num_layers=1)
    assert model.text is not None
    users, items = model.eval().vectors()
    with torch.no_grad():
        model.text.weight.zero_()
    bare_users, bare_items = model.vectors()
    features = (vectors - vectors.mean(0)) / vectors.std(0)
    torch.manual_seed(0)
    twin = GAT(replace(spec(), item_vectors=vectors), embedding_dim=8, text=True, relations=False, num_layers=1)
    assert twin.text is not None
    moved = twin.text(torch.from_numpy(features))
    torch.testing.assert_close(items[6], bare_items[6] + moved[6] / 2, rtol=1e-4, atol=1e-5)  # nobody chose item 6
    assert not torch.allclose(users, bare_users)
    with pytest.raises(GenrecError, match="needs item vectors"):
        build(GAT, text=True)


def test_sampling_all_neighbours_is_the_whole_graph() -> None:
    sampled = randomised(build(GAT, num_neighbors=[50, 50], dropout=0.0, l2=0.0))
    whole = randomised(build(GAT, dropout=0.0, l2=0.0))
    losses = [model.train().loss(batch()).total for model in (sampled, whole)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, first), second in zip(sampled.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, msg=name)


def test_a_few_sampled_neighbours_train_too() -> None:
    model = build(GAT, num_neighbors=[1, 1])
    np.random.seed(0)
    model.train().loss(batch()).total.backward()
    assert model.nodes.weight.grad is not None and bool(torch.isfinite(model.nodes.weight.grad).all())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GAT, {"num_heads": 3}, "model.embedding_dim=8 must be a multiple of model.num_heads=3"),
        (GAT, {"num_neighbors": [5]}, "give one number for each of the 2 layers"),
        (GAT, {"num_neighbors": [5, 5], "loss": FullCrossEntropy()}, "wants the whole catalogue"),
        (XSimGCL, {"contrast_layer": 3}, "model.contrast_layer=3: there are 2 layers"),
        (LightGCN, {"num_layers": 0}, "model.num_layers=0: expected a whole number of at least 1"),
        (BPRMF, {"l2": -1}, "model.l2=-1: expected a number of at least 0"),
    ],
)
def test_impossible_settings_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        build(kind, **options)
