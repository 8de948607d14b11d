from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from genrec.contracts import DataSpec, GenrecError, SequenceBatch
from genrec.losses import SampledSoftmax
from genrec.models.hstu import HSTU
from tests.models.contract import NUM_ITEMS, RetrievalContract, histories, ring_spec

TINY: dict[str, Any] = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "dropout": 0.1}


class TestHSTU(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return HSTU(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestHSTUSampled(TestHSTU):
    CHANGES: ClassVar[dict[str, Any]] = {"text": True, "loss": SampledSoftmax(num_negatives=16)}


def _hstu(**changes: Any) -> HSTU:
    torch.manual_seed(0)
    return HSTU(ring_spec(), **{**TINY, "max_history": 8, **changes})


def _batch() -> SequenceBatch:
    items = torch.tensor([[3, 4, 5, 6], [8, 9, 10, 11]])
    return SequenceBatch(torch.arange(2), items, torch.tensor([4, 4]), items + 1)


def test_loss_is_the_cross_entropy_of_every_scored_position() -> None:
    model, batch = _hstu().eval(), _batch()
    logits = model.encode(model.table()[batch.items], batch.lengths) @ model.table().T
    losses = model.loss(batch)
    assert losses.count == 8
    assert torch.allclose(
        losses.total, functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()), atol=1e-5
    )


def test_one_pass_equals_one_history_per_target() -> None:
    model, batch = _hstu().eval(), _batch()
    hidden = model.encode(model.table()[batch.items], batch.lengths)
    for row, place in ((0, 0), (0, 3), (1, 2)):
        found = model.recommend(histories([batch.items[row, : place + 1].tolist()]), NUM_ITEMS)
        scores = hidden[row, place] @ model.table().T
        assert torch.allclose(found.scores[0], scores[found.items[0]], atol=1e-5)


def test_order_is_known_from_distances() -> None:
    """Without the bias the items before the last are a bag; with it their order matters."""
    model = _hstu(num_layers=1).eval()
    block: Any = model.blocks[0]
    with torch.no_grad():
        nn.init.normal_(model.items.weight)
        for _, parameter in block.named_parameters():
            nn.init.normal_(parameter, std=0.5)
        block.distance_bias.zero_()
    one, other = histories([[1, 2, 3]]), histories([[2, 1, 3]])
    assert torch.allclose(model.recommend(one, 5).scores, model.recommend(other, 5).scores, atol=1e-4)
    with torch.no_grad():
        block.distance_bias.normal_(std=2.0)
    assert not torch.allclose(model.recommend(one, 5).scores, model.recommend(other, 5).scores, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"embedding_dim": 15}, "multiple of model.num_heads=2"), ({"dropout": -0.1}, "at least 0")],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _hstu(**changes)
