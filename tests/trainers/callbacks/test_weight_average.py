"""The moving average of the weights: its numbers, where it stands in, and that a resume changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from trainer_toys import same_files, toy_context, toy_model, toy_view

from genrec.artifacts import write_json
from genrec.contracts import GenrecError
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.callbacks.weight_average import WeightAverage
from genrec.trainers.checkpoints import BEST, FINAL, read_checkpoint
from genrec.trainers.simple import SimpleTrainer


class Watched(SimpleTrainer):
    """Notes the weights after every optimizer step, in the order of the steps."""

    noted: ClassVar[list[torch.Tensor]]

    def after_batch(self, learner: Any, *, stepped: bool) -> None:
        super().after_batch(learner, stepped=stepped)
        if stepped:
            self.noted.append(learner.model.items.weight.detach().clone())


def test_average_is_that_of_the_steps_and_is_what_is_kept(tmp_path: Path) -> None:
    trainer, model = Watched(max_epochs=2, batch_size=64, accumulate_grad_batches=2), toy_model()
    Watched.noted = []
    average = model.items.weight.detach().clone()
    trainer.fit(model, toy_view(), toy_context(tmp_path, callbacks=[WeightAverage(decay=0.9)]))
    assert len(trainer.noted) > 10
    for step, weights in enumerate(trainer.noted, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    for name in (BEST, FINAL):
        assert torch.allclose(read_checkpoint(tmp_path / "checkpoints" / name)["items.weight"], average, atol=1e-6)
    assert torch.allclose(model.items.weight, average, atol=1e-6)


def test_training_goes_on_with_the_weights_it_had(tmp_path: Path) -> None:
    runs = {}
    for name, callbacks in (("plain", []), ("averaged", [WeightAverage(decay=0.9)])):
        trainer = Watched(max_epochs=3, batch_size=64)
        Watched.noted = []
        trainer.fit(toy_model(), toy_view(), toy_context(tmp_path / name, callbacks=callbacks))
        runs[name] = trainer.noted
    assert all(torch.equal(*pair) for pair in zip(runs["plain"], runs["averaged"], strict=True))


@pytest.mark.parametrize("steps", [3, 17])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed within the first epoch, and within a later one whose weights the average had stood in for."""

    def run(folder: Path) -> None:
        trainer = AdvancedTrainer(max_epochs=4, batch_size=64, checkpoint_every_steps=2, patience=9)
        model, view = toy_model(), toy_view()
        context = toy_context(folder, resume=True, callbacks=[WeightAverage(decay=0.9)])
        result = trainer.fit(model, view, context)
        write_json(folder / "metrics.json", {"final": trainer.test(model, view, context), "history": result.history})

    run(tmp_path / "whole")
    calls = {"count": 0}
    original = AdvancedTrainer.train_step

    def dying(self: Any, model: Any, batch: Any) -> Any:
        calls["count"] += 1
        if calls["count"] > steps:
            raise KeyboardInterrupt
        return original(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(AdvancedTrainer, "train_step", dying)
        with pytest.raises(BaseException) as caught:
            run(tmp_path / "killed")
    assert isinstance(caught.value, (KeyboardInterrupt, SystemExit))
    run(tmp_path / "killed")
    same_files(tmp_path / "whole", tmp_path / "killed", [BEST, FINAL])


def test_a_second_model_gets_nothing_of_the_first(tmp_path: Path) -> None:
    used, view = WeightAverage(decay=0.9), toy_view()
    models = [toy_model(seed) for seed in (1, 2, 2)]
    for model, average in zip(models, (used, used, WeightAverage(decay=0.9)), strict=True):
        SimpleTrainer(max_epochs=1, batch_size=64).fit(model, view, toy_context(tmp_path, callbacks=[average]))
    assert torch.equal(models[1].items.weight, models[2].items.weight)


def test_epoch_by_epoch_it_is_the_same(tmp_path: Path) -> None:
    context = toy_context(tmp_path, callbacks=[WeightAverage(decay=0.9)])
    models, trainer = [toy_model(), toy_model()], SimpleTrainer(max_epochs=3, batch_size=64)
    trainer.fit(models[0], toy_view(), context)
    trainer.train_epoch(models[1], toy_view(), context)
    while not trainer.finished:
        trainer.train_epoch()
    trainer.finish()
    assert torch.equal(models[0].items.weight, models[1].items.weight)


def test_a_run_is_not_continued_without_it(tmp_path: Path) -> None:
    trainer = SimpleTrainer(max_epochs=2, max_steps=4, batch_size=64, checkpoint_every_steps=3)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, callbacks=[WeightAverage()]))
    longer = SimpleTrainer(max_epochs=2, batch_size=64)
    with pytest.raises(GenrecError, match=r"had the callback WeightAverage, .* the same callbacks, or start again"):
        longer.fit(toy_model(), toy_view(), toy_context(tmp_path, resume=True))
    longer.fit(toy_model(), toy_view(), toy_context(tmp_path, resume=True, callbacks=[WeightAverage()]))


def test_a_share_of_one_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"decay=1\.0"):
        WeightAverage(decay=1.0)
