"""Callbacks that ask for training to end, as Lightning's time limit does, are obeyed, once and for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Timer
from several import in_two
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import GenrecError
from genrec.interruption import Interrupted
from genrec.trainers import AdvancedTrainer, BaseTrainer, SimpleTrainer
from genrec.trainers.checkpoints import LAST, read_checkpoint
from genrec.trainers.hardware import Hardware


class Clock(Timer):
    """A time limit of an hour, which is over after so many steps."""

    def __init__(self, interval: str, steps: int) -> None:
        super().__init__({"hours": 1}, interval=interval)
        self.steps = steps
        self.seen = 0

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.seen = trainer.global_step
        super().on_train_batch_end(trainer, *args, **kwargs)

    def time_elapsed(self, stage: str = "train") -> float:
        return 3600.0 if self.seen >= self.steps else 0.0


def limited(
    folder: Path,
    clock: Timer,
    kind: type[BaseTrainer] = AdvancedTrainer,
    hardware: Hardware | None = None,
    **words: Any,
) -> tuple[BaseTrainer, Any]:
    trainer = kind(**{"max_epochs": 5, "batch_size": 64, **words.pop("options", {})})
    context = toy_context(folder, callbacks=[clock], hardware=hardware, **words)
    return trainer, trainer.fit(toy_model(), toy_view(), context)


@pytest.mark.parametrize("kind", [SimpleTrainer, AdvancedTrainer])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_time_limit_ends_training(kind: type[BaseTrainer], interval: str, tmp_path: Path, monkeypatch: Any) -> None:
    per_epoch = len(toy_view().train_plan(toy_model(), batch_size=64, seed=42, epoch=1))
    trainer, result = limited(tmp_path, Clock(interval, per_epoch + 2), kind)
    steps = 2 * per_epoch if interval == "epoch" else per_epoch + 2
    assert (result.epochs, result.stopped_early, trainer.global_step) == (2, True, steps)
    assert len(result.history["train/loss"]) == 2
    state = read_checkpoint(tmp_path / "checkpoints" / LAST)
    assert (state["epoch"], state["step_in_epoch"], state["global_step"]) == (2, 0, steps)
    monkeypatch.setattr(kind, "train_step", lambda *args: pytest.fail("trained again"))
    again, repeated = limited(tmp_path, Clock(interval, 1000), kind, resume=True)
    assert (repeated, again.global_step) == (result, steps)


def test_the_last_epoch_is_validated_though_it_is_not_due(tmp_path: Path) -> None:
    _, result = limited(tmp_path, Clock("step", 7), options={"eval_every_epochs": 4})
    assert len(result.history["val/recall@10"]) == 1 and result.best_epoch == result.epochs < 4


def test_a_validation_that_was_interrupted_is_all_that_is_left(tmp_path: Path, monkeypatch: Any) -> None:
    whole, expected = limited(tmp_path / "whole", Clock("step", 7))

    def interrupted(*args: Any) -> Any:
        if args[0].global_step == 7:
            raise Interrupted(15)
        return validated(*args)

    with monkeypatch.context() as patch:
        validated = AdvancedTrainer.evaluate_epoch
        patch.setattr(AdvancedTrainer, "evaluate_epoch", interrupted)
        with pytest.raises(Interrupted):
            limited(tmp_path / "parts", Clock("step", 7))
    monkeypatch.setattr(AdvancedTrainer, "train_step", lambda *args: pytest.fail("trained again"))
    parts, found = limited(tmp_path / "parts", Clock("step", 1000), resume=True)
    assert found == expected and parts.global_step == whole.global_step == 7


def test_a_limit_that_is_over_at_the_start_trains_nothing(tmp_path: Path) -> None:
    trainer, result = limited(tmp_path, Clock("epoch", 0))
    assert (result.epochs, trainer.global_step, result.history) == (0, 0, {})
    final = torch.load(tmp_path / "checkpoints/final_model.pt", weights_only=True)
    assert all(torch.equal(final[name], value) for name, value in toy_model().state_dict().items())


def test_epoch_by_epoch(tmp_path: Path) -> None:
    trainer = AdvancedTrainer(max_epochs=5, batch_size=64)
    trainer.train_epoch(toy_model(), toy_view(), toy_context(tmp_path, callbacks=[Clock("epoch", 1)]))
    with pytest.raises(GenrecError, match="stopped early"):
        trainer.train_epoch()


def in_a_process(hardware: Hardware, folder: str) -> tuple[int, int]:
    clock = Clock("step", 7 if hardware.world.leads else 1000)  # the leader's time is everyone's
    trainer, result = limited(Path(folder), clock, hardware=hardware)
    return result.epochs, trainer.global_step


def test_two_processes_end_together(tmp_path: Path) -> None:
    first, second = in_two(in_a_process, str(tmp_path))
    assert first == second and first[1] == 7
