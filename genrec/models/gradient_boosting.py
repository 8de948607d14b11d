"""Boosted decision trees on the fields of a table, with nothing learned about ids beyond splits: a strong yardstick.

N rows, M columns, L places of a sequence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count, Natural, NotNegative, Positive, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, RowBatch, Task
from genrec.features import TaskSpec
from genrec.models.row_model import features_of

_MOST_CATEGORIES = 255  # the most that scikit-learn splits as sets; ids of larger vocabularies are numbers to it
_LEAST_LABELS = 20  # of either class, for a part of them to be held out and training stopped by it


class GradientBoosting(nn.Module):
    """One scikit-learn ``HistGradientBoosting`` per task, fitted on all training rows when it is first asked.

    Columns: dense values; sparse ids, as categories where the vocabulary has at most 255, else as numbers; of each
    sequence its length and how often the ``max_ids`` ids most frequent in training stand in it. A tenth of the training
    rows tells when to stop. Nothing is saved: a loaded run fits the same trees again.
    """

    view = "rows"
    task = Task.RANKING
    learns_tasks: int | None = None

    def __init__(
        self,
        spec: DataSpec,
        *,
        max_iter: Count = 200,
        learning_rate: Positive = 0.1,
        max_leaf_nodes: Count = 31,
        min_samples_leaf: Count = 20,
        l2_regularization: NotNegative = 0.0,
        max_ids: Natural = 50,
        random_state: Natural = 42,
    ) -> None:
        check_arguments(GradientBoosting.__init__, locals(), "model")
        super().__init__()
        if max_leaf_nodes < 2:
            raise GenrecError(f"model.max_leaf_nodes={max_leaf_nodes}: a tree needs at least 2 leaves.")
        self.features = features_of(spec, GradientBoosting)
        self.max_ids = max_ids
        self._training_rows = spec.training_rows
        self._options: dict[str, Any] = {
            "max_iter": max_iter,
            "learning_rate": learning_rate,
            "max_leaf_nodes": max_leaf_nodes,
            "min_samples_leaf": min_samples_leaf,
            "l2_regularization": l2_regularization,
            "random_state": random_state,
        }
        self._frequent: list[np.ndarray] = []  # the ids that are counted, by sequence field
        self._boosters: list[Any] | None = None

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        return self.features.tasks

    @torch.no_grad()
    def predict(self, batch: RowBatch) -> dict[str, Tensor]:
        """(B,) float32 probabilities, or values in the unit of the label, by task."""
        if self._boosters is None:
            self._boosters = self._fit()
        columns = self._columns(batch)
        found = {}
        for task, booster in zip(self.tasks, self._boosters, strict=True):
            if booster is None:
                values = np.full(len(batch), task.mean)
            elif task.kind == "regression":
                values = booster.predict(columns)
            else:
                values = booster.predict_proba(columns)[:, 1]
            found[task.name] = torch.from_numpy(values.astype(np.float32)).to(batch.labels.device)
        return found

    def _fit(self) -> list[Any]:
        if self._training_rows is None:
            raise GenrecError("GradientBoosting fits the training rows of a table and none were given. Choose a table.")
        rows = self._training_rows()
        self._frequent = [
            _most_frequent(_numpy(ids), field.size, self.max_ids)
            for ids, field in zip(rows.sequences, self.features.sequences, strict=True)
        ]
        columns, labels = self._columns(rows), _numpy(rows.labels)
        return [self._booster(task, columns, labels[:, place]) for place, task in enumerate(self.tasks)]

    def _booster(self, task: TaskSpec, columns: np.ndarray, labels: np.ndarray) -> Any:
        """The trees of a task; None where its known labels are all the same, or there are none."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        known = ~np.isnan(labels)
        columns, labels = (columns, labels) if known.all() else (columns[known], labels[known])
        values, counts = np.unique(labels, return_counts=True)
        if len(values) < 2:
            return None
        regression = task.kind == "regression"
        kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
        enough = len(labels) if regression else int(counts.min())
        categorical = np.zeros(columns.shape[1], dtype=bool)
        for place, field in enumerate(self.features.sparse):
            categorical[len(self.features.dense) + place] = field.size <= _MOST_CATEGORIES
        options = {"categorical_features": categorical, "early_stopping": enough >= _LEAST_LABELS}
        return kind(**options, **self._options).fit(columns, labels)

    def _columns(self, batch: RowBatch) -> np.ndarray:
        """(N, M) float32: dense values, ids, and the counts of every sequence."""
        parts = [_numpy(batch.dense), _numpy(batch.sparse)]
        for ids, frequent in zip(batch.sequences, self._frequent, strict=True):
            ids = _numpy(ids)
            parts += [(ids != IGNORE).sum(axis=1, keepdims=True), _counts(ids, frequent)]
        return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _most_frequent(ids: np.ndarray, size: int, number: int) -> np.ndarray:
    """The ``number`` most frequent ids of a sequence field, equal ones by lower id."""
    counts = np.bincount(ids[ids != IGNORE], minlength=size)
    order = np.argsort(-counts, kind="stable")[:number]
    return order[counts[order] > 0]


def _counts(ids: np.ndarray, frequent: np.ndarray) -> np.ndarray:
    """(N, len(frequent)) how often each of those ids stands in the row (N, L)."""
    column = np.full(max(int(ids.max(initial=0)), int(frequent.max(initial=0))) + 2, -1)
    column[frequent] = np.arange(len(frequent))
    columns = column[ids]  # the last entry is that of IGNORE
    rows, _ = np.nonzero(columns >= 0)
    cells = rows * len(frequent) + columns[columns >= 0]
    return np.bincount(cells, minlength=len(ids) * len(frequent)).reshape(len(ids), len(frequent))
