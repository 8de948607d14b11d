from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from genrec.contracts import IGNORE, DataSpec, GenrecError
from genrec.models.din import DIN
from tests.models.row_contract import RowContract, naive_fields, rough, row_batch, row_features, row_spec


class TestDIN(RowContract):
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return DIN(spec, embedding_dim=4, attention_dims=[8], hidden_dims=[16])


class TestPlainDIN(RowContract):
    def build(self, spec: DataSpec) -> nn.Module:
        return DIN(spec, embedding_dim=4, hidden_dims=[16], activation="relu", batch_norm=True)


def test_sums_the_history_with_weights_from_the_candidate() -> None:
    model = rough(DIN(row_spec(), embedding_dim=3, attention_dims=[4], hidden_dims=[5]))
    batch = row_batch(6)
    found = model.predict(batch)["click"]
    attention = model.fields.attention["0"]
    begin, _ = model.fields.rows_of["item"]
    for row in range(6):
        vectors = naive_fields(model.fields, batch, row)
        candidate, total = vectors[1], torch.zeros(3)
        for item in batch.sequences[0][row]:
            if item != IGNORE:
                old = model.fields.weight[begin + item]
                seen = torch.cat([old, candidate, old - candidate, old * candidate])
                total = total + attention.layers(seen[None])[0, 0] * old
        inputs = torch.cat([*vectors[:4], total, vectors[5], batch.dense[row]])
        logit = model.bias[0] + model.deep(inputs[None])[0, 0]
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-4)


def test_every_sequence_with_a_target_has_attention_whatever_its_pooling() -> None:
    features = row_features()
    model = DIN(DataSpec(features=features))
    assert [field.pooling for field in model.features.sequences] == ["attention", "sum"]
    tags = replace(features.sequences[1], target="user")
    both = DIN(DataSpec(features=replace(features, sequences=(features.sequences[0], tags))))
    assert sorted(both.fields.attention) == ["0", "1"]


@pytest.mark.parametrize("left", [0, 1])
def test_says_what_to_declare_where_no_sequence_has_a_target(left: int) -> None:
    features = row_features()
    features = replace(features, sequences=features.sequences[1:][:left])
    with pytest.raises(GenrecError, match=r"sequences: (tags|none).*target"):
        DIN(DataSpec(features=features))


def test_the_candidate_changes_the_weights() -> None:
    model = rough(DIN(row_spec(), embedding_dim=4))
    batch = row_batch(6)
    vectors = model.fields(batch).vectors[:, 4]
    other = batch.sparse.clone()
    other[:, 1] = 20 - other[:, 1]
    changed = model.fields(replace(batch, sparse=other)).vectors[:, 4]
    there = (batch.sequences[0] != IGNORE).any(dim=1) & (other[:, 1] != batch.sparse[:, 1])
    assert ((vectors - changed).abs().sum(dim=1)[there] > 0).all()
