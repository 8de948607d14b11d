from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, SequenceBatch
from genrec.models.rpg import RPG
from genrec.semantic_ids import SemanticIds
from tests.models.contract import NUM_ITEMS, ROWS, RetrievalContract, histories, no_history, ring_spec

# Warmer than the default: with three codes a digit, a temperature of .03 only teaches the tables how to be apart.
TINY: dict[str, Any] = {
    "embedding_dim": 32,
    "num_layers": 1,
    "num_heads": 2,
    "feedforward_dim": 32,
    "dropout": 0.1,
    "temperature": 0.2,
}


class TestRPG(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return RPG(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestRPGWithItemVectors(TestRPG):
    CHANGES: ClassVar[dict[str, Any]] = {"item_embedding": True, "text": True}


def _rpg(spec: DataSpec | None = None, **changes: Any) -> RPG:
    torch.manual_seed(0)
    model = RPG(spec or ring_spec(), **{**TINY, "max_history": 8, **changes})
    nn.init.normal_(model.heads.weight, std=0.3)  # heads start equal, which would hide a mistake
    return model


def _batch() -> SequenceBatch:
    """Three rows, the last two padded, one position of context."""
    items = torch.tensor([[3, 4, 5, 6], [8, 9, 0, 0], [1, 2, 3, 0]])
    targets = torch.tensor([[IGNORE, 5, 6, 7], [9, 10, IGNORE, IGNORE], [2, 3, 4, IGNORE]])
    return SequenceBatch(torch.arange(3), items, torch.tensor([4, 2, 3]), targets)


def _item_scores(model: RPG, batch: HistoryBatch) -> Tensor:
    """(B, N) by plain indexing: the sum over digits of the log-probability of the item's code."""
    log_probs, codes = model._log_probs(batch), model.item_codes
    return torch.stack([log_probs[level][:, codes[:, level]] for level in range(model.num_levels)]).sum(0)


@torch.no_grad()
def test_loss_is_the_mean_negative_log_probability_of_each_prefix() -> None:
    """All targets in one pass score as if each history stood alone."""
    model, batch = _rpg().eval(), _batch()
    singles = []
    for row, place in (batch.targets != IGNORE).nonzero().tolist():
        alone = histories([batch.items[row, : place + 1].tolist()])
        singles.append(-_item_scores(model, alone)[0, batch.targets[row, place]] / model.num_levels)
    losses = model.loss(batch)
    assert losses.count == len(singles) == 8
    assert losses.total.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-5)


def test_every_item_is_scored_by_the_sum_of_its_digits() -> None:
    model, batch = _rpg().eval(), histories(ROWS)
    found = model.recommend(batch, NUM_ITEMS)
    expected = _item_scores(model, batch).detach().sort(descending=True, stable=True)
    assert torch.equal(found.items, expected.indices)
    torch.testing.assert_close(found.scores, expected.values)


def test_digits_may_have_different_numbers_of_codes() -> None:
    sizes = (3, 4, 2)
    codes = np.stack(np.unravel_index(np.arange(NUM_ITEMS), sizes), axis=1)
    spec = replace(ring_spec(), semantic_ids=SemanticIds(codes, sizes, 3))
    model = _rpg(spec).eval()
    assert [int((row > -torch.inf).sum()) for row in model._log_probs(histories([[1, 2]]))[:, 0]] == [3, 4, 2]
    model.train().loss(_batch()).total.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_order_of_the_digits_does_not_matter() -> None:
    """With tables and heads reordered alike, nothing changes: IDs are sets of features, not sequences."""
    model, order = _rpg().eval(), torch.tensor([2, 0, 1])
    ids = ring_spec().semantic_ids
    assert ids is not None
    turned = _rpg(replace(ring_spec(), semantic_ids=SemanticIds(ids.codes[:, order.numpy()], ids.codebook_sizes, 3)))
    state = model.state_dict()
    bias = state["heads.bias"].view(3, -1)[order].flatten()
    moved = {"codes": state["codes"][order], "heads.weight": state["heads.weight"][order], "heads.bias": bias}
    turned.load_state_dict({**state, **moved})
    batch = histories(ROWS)
    torch.testing.assert_close(_item_scores(turned.eval(), batch), _item_scores(model, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("more", [{"item_embedding": True}, {"text": True}])
def test_history_items_can_bring_more_than_their_digits(more: dict[str, Any]) -> None:
    plain, rich = _rpg(), _rpg(None, **more)
    vectors = rich._vectors(torch.tensor([[4]])) - rich.codes.flatten(0, 1)[rich.item_rows[4]].sum(0) * 3**-0.5
    assert vectors.abs().max() > 1e-4
    expected = plain.codes.flatten(0, 1)[plain.item_rows[4]].sum(0) * 3**-0.5
    torch.testing.assert_close(plain._vectors(torch.tensor([[4]]))[0, 0], expected)


def test_large_catalogues_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = _rpg().eval(), histories(ROWS, filter_seen=True)
    whole = model.recommend(batch, 5)
    monkeypatch.setattr("genrec.decoding.topk.rank_rows.__kwdefaults__", {"seen": None, "max_scores": 2 * NUM_ITEMS})
    parts = model.recommend(batch, 5)
    assert torch.equal(whole.items, parts.items) and torch.equal(whole.scores, parts.scores)


def test_bfloat16_trains_and_ranks_in_full_precision() -> None:
    model = _rpg()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(_batch())
        found = model.recommend(histories(ROWS), 5)
    losses.total.backward()
    assert losses.total.dtype == found.scores.dtype == torch.float32
    assert losses.total.item() == pytest.approx(_rpg().eval().loss(_batch()).total.item(), rel=0.1)


def test_same_seed_same_bits() -> None:
    def once() -> tuple[Tensor, Tensor | None]:
        model = _rpg(dropout=0.3)
        loss = model.loss(_batch()).total
        loss.backward()
        return loss.detach(), model.codes.grad

    first, second = once(), once()
    assert torch.equal(first[0], second[0])
    assert first[1] is not None and second[1] is not None and torch.equal(first[1], second[1])


def test_empty_history_and_batch_without_targets() -> None:
    model, batch = _rpg(), _batch()
    assert model.recommend(no_history(), 3).items.shape == (1, 3)
    assert not torch.equal(model.recommend(no_history(), 3).scores, model.recommend(histories([[0]]), 3).scores)
    losses = model.loss(replace(batch, targets=torch.full_like(batch.targets, IGNORE)))
    losses.total.backward()
    assert (losses.total.item(), losses.count) == (0.0, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"embedding_dim": 33}, "multiple of model.num_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"max_history": 0}, "max_history"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _rpg(**wrong)


def test_missing_inputs_are_named() -> None:
    with pytest.raises(GenrecError, match="tokenizer=opq"):
        _rpg(replace(ring_spec(), semantic_ids=None))
    with pytest.raises(GenrecError, match=r"model\.text"):
        _rpg(replace(ring_spec(), item_vectors=None), text=True)


class TestRPGOverTheCatalogue(TestRPG):
    CHANGES: ClassVar[dict[str, Any]] = {"normalize": "catalogue", "temperature": 0.3}


@torch.no_grad()
def test_normalised_over_the_catalogue_the_items_share_all_probability() -> None:
    model, batch = _rpg(normalize="catalogue").eval(), _batch()
    found = model.recommend(histories([batch.items[0].tolist()]), NUM_ITEMS)
    torch.testing.assert_close(found.scores.exp().sum(1), torch.ones(1))
    singles = []
    for row, place in (batch.targets != IGNORE).nonzero().tolist():
        alone = model.recommend(histories([batch.items[row, : place + 1].tolist()]), NUM_ITEMS)
        singles.append(-alone.scores[alone.items == batch.targets[row, place]])
    assert model.loss(batch).total.item() == pytest.approx(torch.cat(singles).mean().item(), rel=1e-5)
