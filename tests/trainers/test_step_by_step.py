"""Training epoch by epoch, predictions, and checkpoints by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainer_toys import NUM_ITEMS, toy_context, toy_model, toy_view

from genrec.contracts import GenrecError, Losses
from genrec.schedulers import Cosine
from genrec.trainers import AdvancedTrainer, SimpleTrainer
from genrec.trainers.callbacks.weight_average import WeightAverage
from genrec.trainers.checkpoints import BEST, FINAL, LAST, read_checkpoint

OPTIONS: dict[str, Any] = {"max_epochs": 4, "batch_size": 64}


def _context(folder: Path) -> Any:
    return toy_context(folder, scheduler=Cosine(), callbacks=[WeightAverage(decay=0.9)])


@pytest.mark.parametrize("kind", [AdvancedTrainer, SimpleTrainer])
def test_epoch_by_epoch_gives_what_fit_gives(kind: Any, tmp_path: Path) -> None:
    whole, parts = kind(**OPTIONS), kind(**OPTIONS)
    one, other = toy_model(), toy_model()
    expected = whole.fit(one, toy_view(), _context(tmp_path / "a"))
    measured = [parts.train_epoch(other, toy_view(), _context(tmp_path / "b"))]
    while not parts.finished:
        torch.rand(7)  # what a notebook does in between changes nothing
        measured.append(parts.train_epoch())
    found = parts.finish()
    assert found == expected and len(measured) == 4
    for name, values in expected.history.items():
        assert values == [epoch[name] for epoch in measured]
    assert all(torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))
    for name in (BEST, FINAL):
        left, right = (read_checkpoint(tmp_path / folder / "checkpoints" / name) for folder in "ab")
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert parts.current_epoch == 4 and parts.global_step == whole.global_step == 4 * whole.steps_per_epoch


def test_an_epoch_too_many_and_a_start_without_model_are_refused(tmp_path: Path) -> None:
    trainer = SimpleTrainer(max_epochs=1, batch_size=64)
    with pytest.raises(GenrecError, match=r"call train_epoch\(model, data\) first"):
        trainer.train_epoch()
    with pytest.raises(GenrecError, match="nothing to finish"):
        trainer.finish()
    trainer.train_epoch(toy_model(), toy_view(), toy_context(tmp_path))
    with pytest.raises(GenrecError, match=r"over after 1 epochs \(trainer.max_epochs=1\)"):
        trainer.train_epoch()


def test_early_stopping_ends_the_epochs(tmp_path: Path) -> None:
    class Enough(AdvancedTrainer):
        def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
            return self.current_epoch == 2

    trainer = Enough(**OPTIONS)
    trainer.train_epoch(toy_model(), toy_view(), toy_context(tmp_path))
    assert not trainer.finished
    trainer.train_epoch()
    assert trainer.finished
    with pytest.raises(GenrecError, match="stopped early"):
        trainer.train_epoch()


def test_predictions_are_the_models_for_the_users_asked_for(tmp_path: Path) -> None:
    trainer, model, view = SimpleTrainer(max_epochs=2, batch_size=64, eval_batch_size=7), toy_model(), toy_view()
    trainer.fit(model, view, toy_context(tmp_path))
    everyone = trainer.predict(model, view, k=4)
    assert everyone.items.shape == everyone.scores.shape == (view.num_users, 4)
    some = trainer.predict(model, view, users=[3, 100], k=4)
    assert torch.equal(some.items, everyone.items[[3, 100]])
    last = torch.tensor([row[-1] for row in view.history("all")])
    expected = model.eval().out(model.norm(model.items(last))).topk(4)
    assert torch.equal(everyone.items, expected.indices)
    wrongs: list[dict[str, Any]] = [{"users": [view.num_users]}, {"users": [-1]}, {"k": 0}, {"k": NUM_ITEMS + 1}]
    for wrong in wrongs:
        with pytest.raises(GenrecError, match=r"There is no user|give a number of items from 1 to 30"):
            trainer.predict(model, view, **wrong)
    with pytest.raises(GenrecError, match="Linear recommends nothing"):
        trainer.predict(nn.Linear(1, 1), view)


def test_checkpoints_by_hand(tmp_path: Path) -> None:
    trainer, model = SimpleTrainer(max_epochs=2, batch_size=64), toy_model()
    with pytest.raises(GenrecError, match="no model to save"):
        trainer.save_checkpoint(tmp_path / "early.pt")
    trainer.fit(model, toy_view(), toy_context(tmp_path / "run"))
    path = trainer.save_checkpoint(tmp_path / "deep" / "mine.pt")
    for source in (path, tmp_path / "run/checkpoints" / BEST, tmp_path / "run/checkpoints" / LAST):
        other = trainer.load_checkpoint(source, toy_model(seed=9))
        assert all(torch.equal(left, right) for left, right in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(GenrecError, match=r"mine.pt holds another model"):
        trainer.load_checkpoint(path, toy_model(dim=8))
    with pytest.raises(GenrecError, match="does not exist"):
        trainer.load_checkpoint(tmp_path / "none.pt", model)


def test_the_step_of_validation_can_be_overridden(tmp_path: Path) -> None:
    class Doubled(AdvancedTrainer):
        def validate_step(self, model: nn.Module, batch: Any) -> Losses:
            found = super().validate_step(model, batch)
            return Losses(2 * found.total, found.count)

    histories = []
    for kind in (AdvancedTrainer, Doubled):
        trainer = kind(max_epochs=1, batch_size=64)
        histories.append(trainer.fit(toy_model(), toy_view(), toy_context(tmp_path / kind.__name__)).history)
    assert histories[1]["val/loss"] == pytest.approx([2 * value for value in histories[0]["val/loss"]])
