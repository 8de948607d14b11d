"""What the test saw of each user or row, kept for reports and paired comparisons; metrics alone cannot tell it.

B users or rows of a batch, k length of the lists, T targets per user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from genrec.artifacts import atomic_path, write_json
from genrec.contracts import IGNORE, TEST, HistoryBatch, Recommendations, RowBatch, Task
from genrec.features import TaskSpec
from genrec.metrics.ranking import RankingAccumulator
from genrec.records import ROWS_FILE, SAMPLES_FILE, USERS_FILE
from genrec.trainers.world import World

if TYPE_CHECKING:
    import polars as pl

METRICS = ("recall", "ndcg", "hit")
MAX_ROWS = 2_000_000  # of a table whose predictions are kept
NUM_SAMPLES = 8  # users whose lists are kept
_LONGEST_SAMPLE = 12  # items of a history that are shown
_NOBODY = np.empty(0, dtype=np.int64)


class ListEvidence:
    """Collects the lists of every test user: their metrics, and the lists themselves of a few users drawn by ``seed``.

    It is given to ``evaluate_retrieval`` as ``collect``.
    """

    def __init__(self, view: Any, k_values: Sequence[int], *, seed: int = 0, num_samples: int = NUM_SAMPLES) -> None:
        self.view = view
        self.ranking = RankingAccumulator(k_values, metrics=METRICS, keep_per_user=True)
        self.users: list[np.ndarray] = []
        users = np.flatnonzero((view.test.lengths > 0) & (view.history(TEST).lengths > 0))
        drawn = np.random.default_rng([seed, 11]).choice(users, min(num_samples, len(users)), replace=False)
        self.sampled = np.sort(drawn)
        self.lists: dict[int, tuple[list[int], list[float]]] = {}

    def __call__(self, batch: HistoryBatch, found: Recommendations, targets: Tensor) -> None:
        """Adds a batch: lists (B, k) and targets (B, T)."""
        users = batch.users.cpu().numpy()
        scored = (targets != IGNORE).any(dim=1).cpu().numpy()
        self.ranking.update(found.items, targets)
        self.users.append(users[scored])
        for place in np.flatnonzero(np.isin(users, self.sampled)).tolist():
            self.lists[int(users[place])] = (found.items[place].tolist(), found.scores[place].float().tolist())

    def together(self, world: World) -> None:
        """Adds what the other processes have collected of their users."""
        found = world.gather((np.concatenate([*self.users, _NOBODY]), self.ranking.per_user(), self.lists))
        self.users = [users for users, _, _ in found]
        self.ranking.keep([values for _, values, _ in found])
        self.lists = {user: entry for _, _, lists in found for user, entry in lists.items()}

    def metrics(self) -> pl.DataFrame:
        """A row per scored user: ``user``, the internal index, and the metrics, float32."""
        import polars as pl

        users = np.concatenate(self.users) if self.users else np.empty(0, dtype=np.int64)
        columns = {name: values.astype(np.float32) for name, values in self.ranking.per_user().items()}
        return pl.DataFrame({"user": users, **columns}).sort("user")

    def table(self, user_ids: np.ndarray) -> pl.DataFrame:
        """The metrics beside what is known of each user (``genrec.records.RunRecord.users`` says which columns)."""
        import polars as pl

        metrics = self.metrics()
        users = metrics["user"].to_numpy()
        targets = self.view.test.take(users)
        popularity = self.view.train.counts(self.view.num_items)
        sums = np.bincount(targets.row_of_value, weights=popularity[targets.values], minlength=len(users))
        known = pl.DataFrame(
            {
                "user_id": pl.Series(user_ids[users]),
                "history_length": self.view.history(TEST).take(users).lengths.astype(np.int64),
                "num_targets": targets.lengths.astype(np.int64),
                "target_popularity": sums / np.maximum(targets.lengths, 1),
            }
        )
        return pl.concat([metrics.select("user"), known, metrics.drop("user")], how="horizontal")

    def samples(self, dataset: Any, length: int = 10) -> list[dict[str, Any]]:
        """The drawn users with the end of their history, what was held out and what was recommended, by their names."""
        history = self.view.history(TEST)
        shown = []
        for user in self.sampled.tolist():
            if user not in self.lists:
                continue
            items, scores = self.lists[user]
            held_out = set(self.view.test[user].tolist())
            listed = [(item, score) for item, score in zip(items, scores, strict=True) if item != IGNORE][:length]
            shown.append(
                {
                    "user_id": dataset.log.user_ids[user].item(),
                    "history_length": int(history.lengths[user]),
                    "history": [_named(dataset, item) for item in history[user][-_LONGEST_SAMPLE:].tolist()],
                    "targets": [_named(dataset, item) for item in self.view.test[user].tolist()],
                    "recommended": [
                        {**_named(dataset, item), "score": _rounded(score), "hit": item in held_out}
                        for item, score in listed
                    ],
                }
            )
        return shown


class RowEvidence:
    """Collects the predictions of test rows; none where they are more than ``MAX_ROWS``.

    It is given to ``evaluate_rows`` as ``collect``.
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self.tasks = [task.name for task in tasks]
        self.predictions: dict[str, list[np.ndarray]] = {name: [] for name in self.tasks}
        self.labels: list[np.ndarray] = []
        self.groups: list[np.ndarray] = []
        self.count = 0

    def __call__(self, batch: RowBatch, predictions: Mapping[str, Tensor]) -> None:
        """Adds a batch of B rows."""
        self.count += len(batch)
        if self.count > MAX_ROWS:
            return
        self.labels.append(batch.labels.float().cpu().numpy())
        if batch.groups is not None:
            self.groups.append(batch.groups.cpu().numpy())
        for name in self.tasks:
            self.predictions[name].append(predictions[name].float().cpu().numpy())

    def together(self, world: World) -> None:
        """Adds what the other processes have collected of their batches."""
        self.count = sum(world.gather(self.count))
        if not self.complete:
            return
        self.labels, self.groups = world.in_turn(self.labels), world.in_turn(self.groups)
        self.predictions = {name: world.in_turn(parts) for name, parts in self.predictions.items()}

    @property
    def complete(self) -> bool:
        return 0 < self.count <= MAX_ROWS

    def predicted(self) -> pl.DataFrame:
        """``prediction/<task>`` of every row, float32."""
        import polars as pl

        return pl.DataFrame({f"prediction/{name}": np.concatenate(parts) for name, parts in self.predictions.items()})

    def table(self) -> pl.DataFrame:
        """The predictions beside ``label/<task>`` and, where they are known, ``group``."""
        import polars as pl

        labels = np.concatenate(self.labels)
        columns: dict[str, Any] = {f"label/{name}": labels[:, place] for place, name in enumerate(self.tasks)}
        if self.groups:
            columns["group"] = np.concatenate(self.groups)
        return pl.concat([pl.DataFrame(columns), self.predicted()], how="horizontal")


def evidence_of(model: Any, view: Any, k_values: Sequence[int], seed: int) -> ListEvidence | RowEvidence | None:
    """What collects the test of such a model on ``view``; None for one that neither recommends nor predicts."""
    if model.task is Task.RANKING:
        return RowEvidence(view.features.tasks)
    return ListEvidence(view, k_values, seed=seed) if model.task is Task.RETRIEVAL and hasattr(view, "test") else None


def write_evidence(
    folder: Path, evidence: ListEvidence | RowEvidence, baselines: Mapping[str, Any], dataset: Any
) -> None:
    """``test_users.parquet`` and ``samples.json``, or ``test_rows.parquet`` where all rows were kept; the baselines'
    evidence beside it."""
    if isinstance(evidence, RowEvidence):
        if not evidence.complete:
            return
        name = ROWS_FILE
        rows = {name: found.predicted() for name, found in baselines.items() if found.count == evidence.count}
        table = with_baselines(evidence.table(), rows, None)
    else:
        name = USERS_FILE
        users = {name: found.metrics() for name, found in baselines.items()}
        table = with_baselines(evidence.table(dataset.log.user_ids), users, "user").drop("user")
        write_json(folder / SAMPLES_FILE, evidence.samples(dataset))
    with atomic_path(folder / name) as unfinished:
        table.write_parquet(unfinished)


def with_baselines(table: pl.DataFrame, baselines: Mapping[str, pl.DataFrame], key: str | None) -> pl.DataFrame:
    """The columns of baselines beside those of the model, named ``baseline/<name>/<column>``; joined by ``key``, or row
    by row where there is none."""
    import polars as pl

    for name, frame in baselines.items():
        named = frame.rename({column: f"baseline/{name}/{column}" for column in frame.columns if column != key})
        if key is None:
            table = pl.concat([table, named], how="horizontal")
        else:
            table = table.join(named, on=key, how="left", maintain_order="left")
    return table


def _named(dataset: Any, item: int) -> dict[str, Any]:
    return {"item_id": dataset.log.item_ids[item].item(), "title": dataset.titles[item]}


def _rounded(score: float) -> float | None:
    """None for what is no number, such as the scores of a run that diverged: JSON has none of those."""
    return round(score, 4) if math.isfinite(score) else None
