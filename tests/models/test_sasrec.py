from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from genrec.contracts import IGNORE, DataSpec, GenrecError, SequenceBatch
from genrec.losses import BCE, GBCE, SampledSoftmax
from genrec.models.sasrec import SASRec
from tests.models.contract import NUM_ITEMS, ROWS, RetrievalContract, histories, ring_spec, ring_view

TINY: dict[str, Any] = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "feedforward_dim": 32, "dropout": 0.1}


class TestSASRec(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return SASRec(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestSASRecFromTheEnd(TestSASRec):
    CHANGES: ClassVar[dict[str, Any]] = {"positions": "end"}


class TestESASRec(TestSASRec):
    CHANGES: ClassVar[dict[str, Any]] = {"block": "ligr", "loss": SampledSoftmax(num_negatives=16)}


class TestSASRecWithText(TestSASRec):
    CHANGES: ClassVar[dict[str, Any]] = {"text": True, "loss": GBCE(num_negatives=16)}


class TestSASRecBCE(TestSASRec):
    CHANGES: ClassVar[dict[str, Any]] = {"loss": BCE(num_negatives=4)}


def _sasrec(**changes: Any) -> SASRec:
    torch.manual_seed(0)
    return SASRec(ring_spec(), **{**TINY, "max_history": 8, **changes})


def _batch() -> SequenceBatch:
    """Three rows, the last two padded, one position of context."""
    items = torch.tensor([[3, 4, 5, 6], [8, 9, 0, 0], [1, 2, 3, 0]])
    targets = torch.tensor([[IGNORE, 5, 6, 7], [9, 10, IGNORE, IGNORE], [2, 3, 4, IGNORE]])
    return SequenceBatch(torch.arange(3), items, torch.tensor([4, 2, 3]), targets)


@pytest.mark.parametrize("positions", ["start", "end"])
def test_loss_is_the_cross_entropy_of_every_scored_position(positions: str) -> None:
    model, batch = _sasrec(positions=positions).eval(), _batch()
    table = model.table()
    hidden = model.encode(table[batch.items], batch.lengths)
    scored = [(row, place) for row in range(3) for place in range(4) if batch.targets[row, place] != IGNORE]
    each = [functional.cross_entropy(table @ hidden[at], batch.targets[at]) for at in scored]
    losses = model.loss(batch)
    assert losses.count == len(scored) == 8
    assert torch.allclose(losses.total, torch.stack(each).mean(), atol=1e-5)


def test_one_pass_equals_one_history_per_target() -> None:
    """Numbered from the start, a position in a training row is what recommending from that prefix would see."""
    model, batch = _sasrec().eval(), _batch()
    hidden = model.encode(model.table()[batch.items], batch.lengths)
    for row, place in ((0, 1), (0, 3), (1, 0), (2, 2)):
        found = model.recommend(histories([batch.items[row, : place + 1].tolist()]), NUM_ITEMS)
        scores = hidden[row, place] @ model.table().T
        assert torch.allclose(found.scores[0], scores[found.items[0]], atol=1e-5)


def test_positions_from_the_end_number_the_last_item_first() -> None:
    model = _sasrec(positions="end")
    vectors = model._position_vectors(4, torch.tensor([4, 2]))
    weight = model.positions.weight
    assert torch.equal(vectors[0], weight[[3, 2, 1, 0]])
    assert torch.equal(vectors[1, :2], weight[[1, 0]])


def test_nothing_scored_gives_no_loss_but_a_gradient() -> None:
    model, batch = _sasrec(), _batch()
    losses = model.loss(replace(batch, targets=torch.full_like(batch.targets, IGNORE)))
    losses.total.backward()
    assert losses.count == 0 and losses.total.item() == 0.0


def test_text_reaches_every_item() -> None:
    model = _sasrec(text=True)
    assert model.text is not None
    expected = model.items.weight + model.vectors @ model.text.weight.T
    assert torch.allclose(model.table(), expected)
    assert torch.allclose(model.vectors.mean(0), torch.zeros(model.vectors.shape[1]), atol=1e-5)
    assert torch.allclose(model.vectors.std(0, correction=0), torch.ones(model.vectors.shape[1]), atol=1e-4)


def test_constant_dimensions_of_text_vectors_do_no_harm() -> None:
    spec = ring_spec()
    assert spec.item_vectors is not None
    spec.item_vectors[:, 1] = 2.0
    model = SASRec(spec, **TINY, text=True)
    assert torch.isfinite(model.table()).all()


def test_scores_are_float32_under_autocast() -> None:
    """bfloat16 has 8 bits: the best items of a catalogue would be ties."""
    model = _sasrec().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.recommend(histories(ROWS), 8)
    assert found.scores.dtype == torch.float32
    assert found.scores.bfloat16().float().ne(found.scores).any()


def test_counts_are_training_frequencies() -> None:
    view = ring_view()
    assert _sasrec().counts.sum().item() == len(view.train.values)
    assert _sasrec().counts[int(view.train.values[0])].item() == (view.train.values == view.train.values[0]).sum()


def test_a_row_longer_than_max_history_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="max_history"):
        _sasrec(max_history=3).loss(_batch())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": 0}, "model.embedding_dim=0: expected a whole number of at least 1"),
        ({"embedding_dim": 15}, "multiple of model.num_heads=2"),
        ({"num_layers": 0}, "model.num_layers=0: expected"),
        ({"dropout": 1.0}, "below 1"),
        ({"block": "moe"}, "model.block=moe: expected one of vanilla, ligr"),
        ({"positions": "middle"}, "model.positions=middle: expected one of start, end"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _sasrec(**changes)


def test_text_without_vectors_is_refused() -> None:
    with pytest.raises(GenrecError, match="needs item vectors"):
        SASRec(replace(ring_spec(), item_vectors=None), **TINY, text=True)
