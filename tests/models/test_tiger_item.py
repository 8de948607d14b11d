from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from genrec.contracts import DataSpec, GenrecError, SequenceBatch
from genrec.models.tiger_item import TigerItem
from genrec.semantic_ids import SemanticIds
from tests.models.contract import NUM_ITEMS, ROWS, RetrievalContract, histories, ring_spec, ring_view

SMALL = {
    "embedding_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "feedforward_dim": 32,
    "prefix_dim": 16,
    "dropout": 0.0,
    "text_dim": 3,
    "num_beams": NUM_ITEMS,
}


def build(spec: DataSpec | None = None, **changes) -> TigerItem:
    torch.manual_seed(0)
    model = TigerItem(spec or ring_spec(), **{**SMALL, "max_history": 6, **changes})
    with torch.no_grad():  # prefixes start without effect; give them one
        for output in model.prefix_outputs:
            torch.nn.init.normal_(output.get_parameter("weight"), std=0.3)
        for bias in model.biases:
            bias.normal_(std=0.3)
    return model.eval()


class TestTigerItem(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> TigerItem:
        return TigerItem(spec, max_history=max_history, **SMALL)


def everything(rows: int) -> torch.Tensor:
    return torch.arange(NUM_ITEMS).expand(rows, -1)


def test_probabilities_of_the_catalogue_sum_to_one():
    scores = build().log_prob(histories(ROWS, max_history=6), everything(len(ROWS)))
    assert torch.allclose(scores.exp().sum(1), torch.ones(len(ROWS)), atol=1e-5)


def test_beam_search_with_room_for_all_equals_scoring_everything():
    model, batch = build(), histories(ROWS, max_history=6)
    found = model.recommend(batch, NUM_ITEMS)
    expected = model.log_prob(batch, everything(len(ROWS)))
    assert torch.allclose(found.scores, expected.gather(1, found.items), atol=1e-5)
    assert torch.allclose(found.scores, expected.sort(dim=1, descending=True).values, atol=1e-5)


def test_probability_worked_by_hand():
    """One query, straight from the definition: sums below nodes, scaled, softmax among siblings."""
    model, batch = build(), histories([[3, 4]], max_history=6)
    ids = ring_spec().semantic_ids
    assert ids is not None
    with torch.no_grad():
        assert model.text is not None
        leaves = model.items.weight + model.text(model.features)
        vectors = {item: leaves[model.tree.leaf_of_item[item]] for item in range(NUM_ITEMS)}
        x = torch.stack([vectors[3], vectors[4]])[None] + model.positions.weight[:2]
        for block in model.blocks:
            x = block(x)
        hidden = model.norm(x)[0, 1]
        item, expected = 7, 0.0
        for level in range(3):
            prefix = tuple(ids.codes[item, :level])
            below = {}
            for other in range(NUM_ITEMS):
                if tuple(ids.codes[other, :level]) == prefix:
                    below.setdefault(int(ids.codes[other, level]), []).append(other)
            query = hidden
            if level:
                parents = [other for members in below.values() for other in members]
                parent = sum(vectors[other] for other in parents) / len(parents) ** 0.5
                inside = model.prefix_inputs[level - 1](torch.cat([hidden, parent]))  # pyright: ignore
                query = hidden + model.prefix_outputs[level - 1](torch.nn.functional.gelu(inside))
            nodes = torch.stack([sum(vectors[o] for o in below[c]) / len(below[c]) ** 0.5 for c in sorted(below)])  # pyright: ignore
            all_prefixes = sorted({tuple(row[: level + 1]) for row in ids.codes.tolist()})
            places = [all_prefixes.index((*prefix, code)) for code in sorted(below)]
            logits = nodes @ query + model.biases[level][places]
            expected += float(torch.log_softmax(logits, 0)[sorted(below).index(int(ids.codes[item, level]))])
        assert float(model.log_prob(batch, torch.tensor([[item]]))[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_loss_is_the_negative_log_probability_of_every_position():
    model = build()
    rows = torch.tensor([[4, 5, 6], [9, 8, 7]])
    batch = SequenceBatch(torch.arange(2), rows, torch.tensor([3, 3]), torch.tensor([[5, 6, 7], [-1, 7, 3]]))
    with torch.no_grad():
        losses = model.loss(batch)
    expected = []
    for row, targets in zip(rows.tolist(), batch.targets.tolist(), strict=True):
        for position, target in enumerate(targets):
            if target >= 0:
                history = histories([row[: position + 1]], max_history=6)
                expected.append(-model.log_prob(history, torch.tensor([[target]])).item())
    assert losses.count == 5
    assert float(losses.total) == pytest.approx(np.mean(expected), abs=1e-5)
    assert sum(float(part) for part in losses.parts.values()) == pytest.approx(float(losses.total), abs=1e-5)


def test_an_only_child_costs_nothing_and_the_rest_is_learned():
    """All items differ in the first code, so the other levels have no alternatives."""
    codes = np.stack([np.arange(NUM_ITEMS), np.zeros(NUM_ITEMS, dtype=int)], axis=1)
    spec = replace(ring_spec(), semantic_ids=SemanticIds(codes, (NUM_ITEMS, 3), num_content_levels=1))
    model = build(spec)
    losses = model.loss(next(iter(ring_view().train_plan(model, batch_size=64, seed=0, epoch=1))))
    assert list(losses.parts) == ["loss_level_0"]
    losses.total.backward()
    assert model.items.weight.grad is not None
    assert (model.items.weight.grad.abs().sum(1) > 0).all()


def test_recommending_follows_changed_weights():
    model, batch = build(), histories(ROWS, max_history=6)
    before = model.recommend(batch, 5)
    with torch.no_grad():
        model.items.weight.mul_(-1.0)
    after = model.recommend(batch, 5)
    assert before.items.tolist() != after.items.tolist()
    fresh = build()
    fresh.load_state_dict(model.state_dict())
    assert fresh.recommend(batch, 5).items.tolist() == after.items.tolist()


def test_a_checkpoint_brings_the_text_features_along():
    model = build()
    bare = build(replace(ring_spec(), item_vectors=None))
    bare.load_state_dict(model.state_dict())
    batch = histories(ROWS, max_history=6)
    assert torch.equal(bare.recommend(batch, 5).scores, model.recommend(batch, 5).scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "model.num_layers=0: expected a whole number of at least 1"),
        ({"embedding_dim": 15}, "multiple of model.num_heads=2"),
        ({"dropout": 1.0}, "model.dropout=1.0: expected a number of at least 0 and below 1"),
        ({"text_dim": -1}, "model.text_dim=-1: expected a whole number of at least 0"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    with pytest.raises(GenrecError, match=message):
        build(**changes)


def test_without_semantic_ids_it_says_what_to_choose():
    with pytest.raises(GenrecError, match="tokenizer=rqkmeans"):
        build(replace(ring_spec(), semantic_ids=None))


def test_samples_have_the_models_own_probabilities():
    model, batch = build(), histories(ROWS, max_history=6)
    found = model.sample(batch, 100, generator=torch.Generator().manual_seed(0))
    assert found.items.shape == (len(ROWS), 100) and len(found.items.unique()) > 3
    torch.testing.assert_close(found.scores, model.log_prob(batch, found.items), atol=1e-5, rtol=1e-5)
    greedy = model.sample(batch, 3, top_k=1)
    assert (greedy.items == greedy.items[:, :1]).all()
