from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from genrec.contracts import DataSpec, GenrecError, RowBatch
from genrec.features import SparseField
from genrec.models.gradient_boosting import GradientBoosting
from tests.models.row_contract import RowContract, base_risk, fit, risk, row_batch, row_features, row_spec

TASKS = ("click", "rating")


class TestGradientBoosting(RowContract):
    LEARNS = 0.75

    def build(self, spec: DataSpec) -> nn.Module:
        return GradientBoosting(spec, max_iter=40)


def test_equals_scikit_learn_on_the_same_columns() -> None:
    batch = row_batch()
    history, tags = (ids.numpy() for ids in batch.sequences)
    counts = []
    for ids, size in ((history, 20), (tags, 9)):
        often = [(ids == index).sum() for index in range(size)]
        ranked = sorted((index for index in range(size) if often[index]), key=lambda index: -often[index])
        counts.append((ids >= 0).sum(1))
        counts += [(ids == index).sum(1) for index in ranked[:3]]
    table = np.concatenate([batch.dense.numpy(), batch.sparse.numpy(), np.stack(counts, axis=1)], axis=1)
    options: Any = {"max_iter": 20, "early_stopping": True, "random_state": 1, "categorical_features": [2, 3, 4, 5]}
    reference = HistGradientBoostingClassifier(**options).fit(table, batch.labels[:, 0].numpy())
    model = GradientBoosting(row_spec(), max_iter=20, random_state=1, max_ids=3)
    np.testing.assert_allclose(model.predict(batch)["click"], reference.predict_proba(table)[:, 1], rtol=1e-6)


def test_fits_once_and_only_when_asked() -> None:
    asked = []

    def training_rows() -> RowBatch:
        asked.append(1)
        return row_batch(400)

    model = GradientBoosting(replace(row_spec(), training_rows=training_rows), max_iter=3)
    assert not asked
    first, second = (model.predict(row_batch(5))["click"] for _ in range(2))
    assert len(asked) == 1
    assert torch.equal(first, second)


def test_one_set_of_trees_for_every_task() -> None:
    spec, held_out = row_spec(TASKS), row_batch(seed=7, tasks=TASKS)
    model = GradientBoosting(spec, max_iter=40)
    base = base_risk(held_out, spec)
    for name, value in risk(model, held_out, spec).items():
        assert value < 0.75 * base[name]
    assert 5 < model.predict(held_out)["rating"].mean() < 15  # in the unit of the label


def test_sees_that_two_fields_differ() -> None:
    from genrec.models.logistic_regression import LogisticRegression

    spec, held_out = row_spec(), row_batch(seed=7)
    linear: Any = LogisticRegression(spec)
    fit(linear, row_batch())
    assert risk(GradientBoosting(spec), held_out, spec)["click"] < 0.8 * risk(linear, held_out, spec)["click"]


def test_large_vocabularies_are_numbers() -> None:
    features = row_features()
    wide = SparseField(name="user", size=1000, table="user")
    spec = replace(row_spec(), features=replace(features, sparse=(wide, *features.sparse[1:])))
    model = GradientBoosting(spec, max_iter=2)
    model.predict(row_batch(4))
    assert model._boosters is not None
    assert model._boosters[0].is_categorical_[:6].tolist() == [False, False, False, True, True, True]


def test_ids_that_training_never_saw() -> None:
    model = GradientBoosting(row_spec(), max_iter=3, max_ids=2)
    batch = row_batch(4)
    unseen = replace(batch, sparse=batch.sparse * 0, sequences=tuple(ids * 0 + 8 for ids in batch.sequences))
    assert model.predict(unseen)["click"].isfinite().all()


def test_a_label_of_one_kind_is_its_mean() -> None:
    ones = replace(row_batch(50), labels=torch.ones(50, 1))
    task = replace(row_features().tasks[0], mean=1.0)
    spec = DataSpec(features=replace(row_features(), tasks=(task,)), training_rows=lambda: ones)
    assert GradientBoosting(spec).predict(row_batch(3))["click"].tolist() == [1.0, 1.0, 1.0]


def test_few_rows_are_fitted_without_holding_any_out() -> None:
    few = row_batch(8)
    spec = replace(row_spec(), training_rows=lambda: few)
    assert GradientBoosting(spec, max_iter=2).predict(few)["click"].isfinite().all()


def test_needs_training_rows_when_asked() -> None:
    model = GradientBoosting(DataSpec(features=row_features()))  # a rehearsal has none
    with pytest.raises(GenrecError, match="training rows"):
        model.predict(row_batch(2))


@pytest.mark.parametrize("arguments", [{"max_iter": 0}, {"learning_rate": 0.0}, {"max_leaf_nodes": 1}])
def test_mistakes_are_named(arguments: dict) -> None:
    with pytest.raises(GenrecError, match=next(iter(arguments))):
        GradientBoosting(row_spec(), **arguments)
