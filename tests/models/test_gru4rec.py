from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.gru4rec import GRU4Rec
from tests.models.contract import NUM_ITEMS, ROWS, RetrievalContract, histories, ring_spec

TINY: dict[str, Any] = {"embedding_dim": 16, "dropout": 0.1}


class TestGRU4Rec(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return GRU4Rec(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestGRU4RecPairwise(TestGRU4Rec):
    CHANGES: ClassVar[dict[str, Any]] = {"loss": "pairwise", "tie": False, "text": True}


def _model(**changes: Any) -> Any:
    torch.manual_seed(0)
    return GRU4Rec(ring_spec(), **{**TINY, "max_history": 8, **changes}).eval()


def test_states_are_those_of_the_recurrence_step_by_step() -> None:
    """Reset and update gates as in the paper, for every row up to its own end."""
    model = _model(num_layers=2)
    batch = histories(ROWS)
    expected = []
    for row in ROWS:
        x = model.items.weight[row]
        for layer in model.layers:
            weight_x, weight_h, bias_x, bias_h = (parameter.detach() for parameter in layer.parameters())
            state, states = torch.zeros(16), []
            for item in x:
                reset_x, update_x, new_x = (weight_x @ item + bias_x).chunk(3)
                reset_h, update_h, new_h = (weight_h @ state + bias_h).chunk(3)
                update = torch.sigmoid(update_x + update_h)
                candidate = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
                state = (1 - update) * candidate + update * state
                states.append(state)
            x = torch.stack(states)
        expected.append(model.norm(x[-1]))
    torch.testing.assert_close(model.encode_users(batch), torch.stack(expected).detach())


def test_one_pass_equals_one_history_per_target() -> None:
    model = _model()
    items = torch.tensor([[3, 4, 5, 6], [8, 9, 0, 0]])
    hidden = model.read(model.table(), items, torch.tensor([4, 2]), torch.tensor([0, 1]))
    for row, place in ((0, 0), (0, 3), (1, 1)):
        alone = model.encode_users(histories([items[row, : place + 1].tolist()]))
        torch.testing.assert_close(hidden[row, place], alone[0])


def test_the_order_of_the_history_matters() -> None:
    model = _model()
    one, other = (model.recommend(histories([row]), NUM_ITEMS).scores for row in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(one, other, atol=1e-6)


def test_autocast_leaves_full_precision_scores() -> None:
    model = _model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.recommend(histories(ROWS), 8)
    assert found.scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "model.num_layers=0: expected"),
        ({"embedding_dim": 1.5}, "model.embedding_dim=1.5: expected"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _model(**changes)
