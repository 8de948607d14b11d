from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from torch import nn

from genrec.contracts import DataSpec
from genrec.models.logistic_regression import LogisticRegression
from tests.models.row_contract import RowContract, fit, naive_fields, risk, rough, row_batch, row_spec


class TestLogisticRegression(RowContract):
    LEARNS = 0.97  # what item and context say together is hidden from it

    def build(self, spec: DataSpec) -> nn.Module:
        return LogisticRegression(spec)


def test_equals_a_sum_over_fields() -> None:
    model = rough(LogisticRegression(row_spec()))
    batch = row_batch(5)
    found = model.predict(batch)["click"]
    for row in range(5):
        logit = model.bias[0] + sum(weight[0] for weight in naive_fields(model.fields, batch, row))
        for value, weight in zip(batch.dense[row], model.first_order.dense, strict=True):
            logit = logit + value * weight
        assert found[row].item() == pytest.approx(torch.sigmoid(logit).item(), rel=1e-5)


def test_finds_the_fit_of_scikit_learn() -> None:
    batch = row_batch()
    columns = [batch.dense.numpy()]
    for place, size in enumerate((12, 20, 6)):
        columns.append(np.eye(size)[batch.sparse[:, place].numpy()])
    columns[-1] = columns[-1] + np.eye(6)[batch.sparse[:, 3].numpy()]  # the last two fields share their weights
    history, tags = (np.eye(size)[ids.clamp(min=0).numpy()] for size, ids in zip((20, 9), batch.sequences, strict=True))
    there = [(ids >= 0).numpy()[..., None] for ids in batch.sequences]
    columns[2] = columns[2] + (history * there[0]).sum(1) / np.maximum(there[0].sum(1), 1)  # shares those of items
    columns.append((tags * there[1]).sum(1))
    table = np.concatenate(columns, axis=1)
    reference = Reference(C=1e4, max_iter=5000).fit(table, batch.labels[:, 0].numpy())
    model = LogisticRegression(row_spec())
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss(batch).total
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(model.predict(batch)["click"], reference.predict_proba(table)[:, 1], atol=0.01)


def test_cannot_tell_that_two_fields_differ() -> None:
    model = LogisticRegression(row_spec())
    fit(model, row_batch(), epochs=8)
    assert risk(model, row_batch(seed=7), row_spec())["click"] > 0.63  # FM gets to 0.58, networks to 0.42


def test_embedding_l2_is_half_the_squared_weights_of_a_row() -> None:
    model = LogisticRegression(row_spec(), embedding_l2=0.4)
    batch = row_batch(6)
    _, extra = model.task_losses(batch)
    squares = [sum(weight.item() ** 2 for weight in naive_fields(model.fields, batch, row)) for row in range(6)]
    assert extra is not None
    assert extra.item() == pytest.approx(0.4 / 2 * sum(squares) / 6, rel=1e-5)


def test_attention_becomes_a_mean() -> None:
    spec = row_spec()
    assert spec.features is not None
    history, tags = spec.features.sequences
    features = replace(spec.features, sequences=(replace(history, pooling="attention"), tags))
    torch.manual_seed(0)
    first = LogisticRegression(spec)
    second = LogisticRegression(replace(spec, features=features))
    second.load_state_dict(first.state_dict())
    batch = row_batch(8)
    assert torch.equal(first.predict(batch)["click"], second.predict(batch)["click"])
