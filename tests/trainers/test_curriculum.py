from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from trainer_toys import NUM_ITEMS, toy_context, toy_model, toy_view

from genrec.contracts import IGNORE, GenrecError, Losses, SequenceBatch
from genrec.trainers import AdvancedTrainer, CurriculumTrainer
from genrec.trainers.curriculum import easiest_items


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, [False, True, False, False]), (0.51, [True, True, False, False]), (0.8, [True, True, False, False]),
     (0.81, [True, True, False, True]), (1.0, [True, True, True, True])],
)  # fmt: skip
def test_the_most_popular_items_that_make_up_a_share(share: float, expected: list[bool]) -> None:
    assert easiest_items(np.array([3, 5, 0, 2]), share).tolist() == expected


@pytest.mark.parametrize(("each", "shares"), [(1, [0.4, 0.7, 1.0, 1.0]), (2, [0.4, 0.4, 0.7, 0.7, 1.0, 1.0, 1.0])])
def test_each_share_holds_for_its_epochs(each: int, shares: list[float]) -> None:
    trainer = CurriculumTrainer(difficulty_schedule=[0.4, 0.7, 1.0], epochs_per_difficulty=each)
    for epoch, expected in enumerate(shares, 1):
        trainer.current_epoch = epoch
        assert trainer.difficulty == expected


@dataclass(kw_only=True)
class Noting(CurriculumTrainer):
    """Notes the targets that reach the model, and how many there are, by epoch."""

    def _reset(self) -> None:
        super()._reset()
        self.noted: dict[int, list[torch.Tensor]] = {}

    def train_step(self, model: nn.Module, batch: SequenceBatch) -> Losses:
        model.note = lambda seen: self.noted.setdefault(self.current_epoch, []).append(seen)  # pyright: ignore
        return super().train_step(model, batch)


def test_targets_are_those_of_the_share_and_histories_stay_whole(tmp_path: Path) -> None:
    model: Any = toy_model()
    plain = model.loss

    def loss(batch: SequenceBatch) -> Losses:
        if model.training:
            model.note(batch.targets[batch.targets != IGNORE])
        return plain(batch)

    model.loss = loss
    view, trainer = toy_view(), Noting(max_epochs=3, difficulty_schedule=[0.3, 0.65, 1.0], batch_size=64)
    result = trainer.fit(model, view, toy_context(tmp_path))
    assert result.history["train/difficulty"] == pytest.approx([0.3, 0.65, 1.0])
    counts = np.bincount(view.train.values, minlength=NUM_ITEMS)
    seen = {epoch: set(torch.cat(parts).tolist()) for epoch, parts in trainer.noted.items()}
    for epoch, share in ((1, 0.3), (2, 0.65)):
        assert seen[epoch] == set(np.flatnonzero(easiest_items(counts, share)).tolist())
    assert sum(map(len, trainer.noted[3])) == int(np.maximum(view.train.lengths - 1, 0).sum())


def test_from_the_first_epoch_on_all_items_is_ordinary_training(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_epochs": 2, "batch_size": 64}
    models = [toy_model(), toy_model()]
    CurriculumTrainer(difficulty_schedule=[1.0], **options).fit(models[0], toy_view(), toy_context(tmp_path / "a"))
    AdvancedTrainer(**options).fit(models[1], toy_view(), toy_context(tmp_path / "b"))
    assert all(torch.equal(one, other) for one, other in zip(*(m.parameters() for m in models), strict=True))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        GenrecError,
        match=r"trainer\.difficulty_schedule=\[0.2,1.5\]: expected a list with at least 1 entry, each a number",
    ):
        CurriculumTrainer(difficulty_schedule=[0.2, 1.5])
    with pytest.raises(GenrecError, match=r"trainer\.epochs_per_difficulty=0"):
        CurriculumTrainer(epochs_per_difficulty=0)
    with pytest.raises(GenrecError, match="trainer=curriculum chooses among next items, and Linear is not"):
        CurriculumTrainer().fit(nn.Linear(1, 1), toy_view(), toy_context(Path("unused")))
