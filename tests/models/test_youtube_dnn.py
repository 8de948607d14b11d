from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from genrec.contracts import DataSpec, GenrecError
from genrec.models.youtube_dnn import YouTubeDNN
from tests.models.contract import NUM_ITEMS, RetrievalContract, histories, ring_spec

TINY: dict[str, Any] = {"embedding_dim": 16, "hidden_dims": [64], "dropout": 0.0}


class TestYouTubeDNN(RetrievalContract):
    CHANGES: ClassVar[dict[str, Any]] = {}

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return YouTubeDNN(spec, max_history=max_history, **{**TINY, **self.CHANGES})


class TestYouTubeDNNTied(TestYouTubeDNN):
    CHANGES: ClassVar[dict[str, Any]] = {"tie": True, "text": True, "loss": "in_batch"}


def _model(**changes: Any) -> Any:
    torch.manual_seed(0)
    return YouTubeDNN(ring_spec(), **{**TINY, "max_history": 8, **changes}).eval()


def test_scores_are_those_of_the_mean_of_the_history() -> None:
    model = _model()
    found = model.recommend(histories([[3, 8, 5]]), NUM_ITEMS)
    mean = (model.items.weight[3] + model.items.weight[8] + model.items.weight[5]) / 3
    hidden, output = model.tower.hidden[0], model.tower.output
    user = output(torch.relu(hidden(mean)))
    torch.testing.assert_close(found.scores[0], (model.output.weight @ user)[found.items[0]])


def test_the_order_of_the_history_does_not_matter() -> None:
    model = _model()
    one, other = (model.recommend(histories([row]), 5) for row in ([1, 2, 3], [3, 1, 2]))
    assert one.items.tolist() == other.items.tolist()


def test_one_pass_equals_one_history_per_target() -> None:
    """What stands behind a place, its target first of all, has no part in its vector."""
    model = _model()
    items = torch.tensor([[3, 4, 5, 6]])
    hidden = model.read(model.table(), items, torch.tensor([4]), torch.tensor([0]))
    for place in range(4):
        alone = model.encode_users(histories([items[0, : place + 1].tolist()]))
        torch.testing.assert_close(hidden[:, place], alone)


def test_classes_have_a_table_of_their_own_unless_tied() -> None:
    free, tied = _model(), _model(tie=True)
    assert not torch.equal(free.encode_items(), free.items.weight)
    assert torch.equal(tied.encode_items(), tied.items.weight)
    assert "output.weight" in free.state_dict() and "output.weight" not in tied.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dims": [0]}, r"model.hidden_dims=\[0\]: expected a list, each a whole number of at least 1"),
        ({"dropout": 1.0}, "below 1"),
        ({"tie": 3}, "model.tie=3: expected true or false"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _model(**changes)
