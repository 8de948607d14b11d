from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from trainer_toys import toy_context, toy_model, toy_view

from genrec.trainers import AdvancedTrainer
from genrec.trainers.callbacks.gradient_norm import GradientNorm
from genrec.trainers.tracking import GuardedLogger, close_loggers, log_environment


class Broken(CSVLogger):
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        raise OSError("disk full")


class Recording(CSVLogger):
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        vars(self).setdefault("seen", []).append((step, dict(metrics)))


def test_a_logger_whose_steps_go_backwards(tmp_path: Path) -> None:
    logger = Recording(str(tmp_path))
    trainer, model, view = AdvancedTrainer(max_epochs=3, log_every_steps=2, batch_size=64), toy_model(), toy_view()
    context = toy_context(tmp_path, loggers=[logger], callbacks=[GradientNorm(every_steps=3)])
    trainer.fit(model, view, context)
    trainer.test(model, view, context)
    steps = [step for step, _ in logger.seen]  # pyright: ignore[reportAttributeAccessIssue]
    assert steps == sorted(steps)
    assert steps[-1] == trainer.global_step
    names = {name for _, metrics in logger.seen for name in metrics}  # pyright: ignore[reportAttributeAccessIssue]
    assert {
        "train/loss",
        "train/lr",
        "train/loss_step",
        "train/gradient_norm",
        "val/recall@10",
        "test/ndcg@10",
    } <= names
    guarded = GuardedLogger(logger)
    guarded.log_metrics({"a": 1.0}, 5)
    guarded.log_metrics({"a": 1.0}, 3)
    assert [step for step, _ in logger.seen[-2:]] == [5, 5]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_broken_logger_warns_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loggers = [Broken(str(tmp_path)), CSVLogger(str(tmp_path), name="csv", version="")]
    AdvancedTrainer(max_epochs=2).fit(toy_model(), toy_view(), toy_context(tmp_path, loggers=loggers))
    assert caplog.text.count("disk full") == 1
    assert (tmp_path / "csv" / "metrics.csv").exists()


def epochs_of(path: Path) -> list[int]:
    with open(path / "csv" / "metrics.csv", newline="") as file:
        return [int(float(row["epoch"])) for row in csv.DictReader(file) if row["epoch"]]


def test_a_resumed_run_keeps_the_epochs_of_its_csv(tmp_path: Path) -> None:
    for epochs, resume in ((2, False), (4, True)):
        context = toy_context(tmp_path, loggers=[CSVLogger(str(tmp_path), name="csv", version="")], resume=resume)
        AdvancedTrainer(max_epochs=epochs).fit(toy_model(), toy_view(), context)
    assert epochs_of(tmp_path) == [1, 2, 3, 4]


def test_tensorboard_tags_can_be_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="tensorboard", version="")
    log_environment([logger], {"model": {"width": 3}}, {"python": "3"})
    AdvancedTrainer(max_epochs=2).fit(toy_model(), toy_view(), toy_context(tmp_path, loggers=[logger]))
    close_loggers([logger])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "val/recall@10", "train/lr"} <= set(events.Tags()["scalars"])
    assert (tmp_path / "tensorboard" / "hparams.yaml").exists()


@pytest.mark.slow
def test_wandb_offline_makes_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="genrec", save_dir=str(tmp_path), offline=True)
    log_environment([logger], {"seed": 1}, {"python": "3"})
    AdvancedTrainer(max_epochs=1).fit(toy_model(), toy_view(), toy_context(tmp_path, loggers=[logger]))
    close_loggers([logger])
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
