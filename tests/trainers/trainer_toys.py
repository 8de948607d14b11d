"""A small next-item model and a data set whose order can be learned."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from genrec.artifacts import write_json
from genrec.contracts import IGNORE, HistoryBatch, Losses, Recommendations, RunContext, SequenceBatch, Task
from genrec.data.interactions import InteractionLog
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.trainers.advanced import AdvancedTrainer

NUM_ITEMS = 30


class ToyModel(nn.Module):
    """Scores the next item from the last one; dropout makes training depend on torch's random numbers."""

    view = "sequences"
    task = Task.RETRIEVAL
    max_history = 8
    training_mode = "positions"

    def __init__(self, num_items: int = NUM_ITEMS, dim: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim, num_items)

    def loss(self, batch: SequenceBatch) -> Losses:
        logits = self.out(self.dropout(self.norm(self.items(batch.items))))
        total = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        return Losses(total, int((batch.targets != IGNORE).sum()), {"entropy": total.detach()})

    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        last = batch.items[torch.arange(len(batch.users)), batch.lengths - 1]
        scores = self.out(self.norm(self.items(last)))
        if batch.seen is not None:
            rows = torch.arange(len(batch.users))[:, None].expand_as(batch.seen)
            known = batch.seen != IGNORE
            scores[rows[known], batch.seen[known]] = -torch.inf
        top = scores.topk(min(k, scores.shape[1]))
        return Recommendations(top.indices, top.values)


def toy_view(num_users: int = 120, num_items: int = NUM_ITEMS, seed: int = 0) -> SequencesView:
    """Users walk up the item ids, now and then jumping; the next item is predictable from the last."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_users):
        row = [int(rng.integers(num_items))]
        for _ in range(int(rng.integers(6, 12))):
            row.append(int(rng.integers(num_items)) if rng.random() < 0.2 else (row[-1] + 1) % num_items)
        rows.append(row)
    train = Ragged.from_rows(row[:-2] for row in rows)
    val = Ragged.from_rows([row[-2]] for row in rows)
    test = Ragged.from_rows([row[-1]] for row in rows)
    return SequencesView(train, val, test, num_items)


def timed_dataset(view: SequencesView) -> Any:
    """The view with a log: all users' n-th interactions happen at time n."""
    whole = view.history("all")
    places = np.arange(len(whole.values)) - whole.offsets[:-1][whole.row_of_value]
    users, raw = whole.row_of_value, np.arange(view.num_users)
    log = InteractionLog(users, whole.values, raw, np.arange(view.num_items), timestamps=places.astype(np.int64))
    return SimpleNamespace(log=log, view=lambda name: view, titles=None)


def toy_model(seed: int = 0, **options: Any) -> ToyModel:
    torch.manual_seed(seed)
    return ToyModel(**options)


def toy_context(folder: Path, **options: Any) -> RunContext:
    return RunContext(output_dir=folder, **{"progress": False, **options})


def slow_resumable_run(folder: str, options: dict[str, Any]) -> None:
    """The same run, whose every step takes at least a hundredth of a second; in a process of its own."""
    step = AdvancedTrainer.train_step

    def slow(self: AdvancedTrainer, model: Any, batch: Any) -> Losses:
        time.sleep(0.01)
        return step(self, model, batch)

    AdvancedTrainer.train_step = slow
    resumable_run(folder, options)


def resumable_run(folder: str, options: dict[str, Any]) -> None:
    """A run as a process of its own: continues from ``folder``, tests, and writes what it found."""
    trainer = AdvancedTrainer(**options)
    model, view, context = toy_model(), toy_view(), toy_context(Path(folder), resume=True)
    result = trainer.fit(model, view, context)
    final = trainer.test(model, view, context)
    write_json(Path(folder) / "metrics.json", {"final": final, "history": result.history})


def same_files(one: Path, other: Path, names: list[str]) -> None:
    """Asserts that weights and metrics of two run folders are equal to the bit."""
    assert (one / "metrics.json").read_text() == (other / "metrics.json").read_text()
    for name in names:
        left, right = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (one, other))
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), f"{name}: {key}"
