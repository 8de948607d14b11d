from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from trainer_toys import toy_context, toy_model, toy_view

from genrec.data.dataset import Dataset
from genrec.models.sasrec import SASRec
from genrec.semantic_ids import SemanticIds
from genrec.trainers import AdvancedTrainer
from genrec.trainers.callbacks.gradient_norm import GradientNorm
from genrec.trainers.tracking import (
    GuardedLogger,
    PublishedRun,
    close_loggers,
    guard,
    item_map,
    log_environment,
    name_run,
    publish,
)


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


class Failing(CSVLogger):
    """A logger of which one method, or property, fails as on a full disk."""

    def __init__(self, folder: Path, method: str) -> None:
        super().__init__(str(folder), name="csv", version="")
        self.method = method
        self.calls = 0

    def __getattribute__(self, name: str) -> Any:
        if name not in ("method", "calls", "__dict__", "__class__") and name == self.__dict__.get("method"):
            self.calls += 1
            raise OSError(28, "No space left on device")
        return super().__getattribute__(name)

    def begin(self, name: Any) -> None:
        """A hook to fail in."""

    def publish(self, run: Any) -> None:
        """Another."""


HOOKS = ("begin", "log_hyperparams", "log_metrics", "save", "experiment", "name", "version", "save_dir", "publish")


@pytest.mark.parametrize("method", [*HOOKS, "finalize"])
def test_whatever_fails_is_told_once_and_the_run_goes_on(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Failing(tmp_path / "broken", method), Recording(str(tmp_path))
    loggers = guard([broken, sound])
    log_environment(loggers, {"seed": 1}, None, name_run(tmp_path))
    trainer, model, view = AdvancedTrainer(max_epochs=2), toy_model(), toy_view()
    trainer.fit(model, view, toy_context(tmp_path, loggers=loggers, callbacks=[Curious()]))
    metrics = trainer.test(model, view)
    publish(loggers, PublishedRun(tmp_path, metrics, {"seed": 1}))
    close_loggers(loggers)
    assert broken.calls >= 1
    assert caplog.text.count("Failing failed and is switched off for this run") == 1
    assert caplog.text.count("No space left on device") == 1
    assert not loggers[1].failed
    assert "test/recall@10" in sound.seen[-1][1]  # pyright: ignore[reportAttributeAccessIssue]


class Curious(pl.Callback):
    """Looks at every property of the loggers and writes with what they offer."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        for logger in trainer.loggers:
            _ = logger.name, logger.version, logger.save_dir
            logger.experiment.log_metrics({"curious": 1.0})


def test_what_a_logger_writes_with_is_guarded_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(CSVLogger):
        @property
        def experiment(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return self

        def add_text(self, *words: str) -> None:
            raise OSError("No space left on device")

    guarded = GuardedLogger(Full(str(tmp_path)))
    for _ in range(3):
        guarded.experiment.add_text("samples", "text")
    assert guarded.failed
    assert caplog.text.count("No space left") == 1


class Keeping(CSVLogger):
    """Has the hooks of ``genrec.loggers``, and starts empty or not."""

    def __init__(self, folder: Path, starts_empty: bool = True) -> None:
        super().__init__(str(folder))
        self.starts_empty = starts_empty
        self.told: list[Any] = []

    def begin(self, name: Any) -> None:
        self.told.append(name.name)

    def publish(self, run: Any) -> None:
        self.told.append(run.final)

    def log_hyperparams(self, params: Any = None) -> None:
        self.told.append(params)


def test_loggers_are_told_the_name_before_and_the_results_after(tmp_path: Path) -> None:
    logger, other = Keeping(tmp_path), CSVLogger(str(tmp_path))  # the other has no such hooks
    loggers = guard([logger, other])
    log_environment(loggers, {"seed": 1}, {"python": "3"}, name_run(tmp_path / "mine"))
    publish(loggers, PublishedRun(tmp_path, {"test/auc": 0.5}, {"seed": 1}))
    assert logger.told == ["mine", {"seed": 1, "environment": {"python": "3"}}, {"test/auc": 0.5}]
    assert not loggers[1].failed


class Lasting(TensorBoardLogger):
    """Finds on disk what it wrote before."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        vars(self).setdefault("seen", []).append((step, dict(metrics)))  # pyright: ignore[reportAttributeAccessIssue]


def test_only_loggers_that_start_empty_get_the_epochs_of_a_resumed_run_again(tmp_path: Path) -> None:
    for epochs, resume in ((2, False), (4, True)):
        empty, lasting = Recording(str(tmp_path)), Lasting(str(tmp_path))
        context = toy_context(tmp_path, loggers=[empty, lasting], resume=resume)
        AdvancedTrainer(max_epochs=epochs).fit(toy_model(), toy_view(), context)
    for logger, expected in ((empty, [1, 2, 3, 4]), (lasting, [3, 4])):
        seen: Any = logger.seen  # pyright: ignore[reportAttributeAccessIssue]
        assert [int(metrics["epoch"]) for _, metrics in seen if "epoch" in metrics] == expected
        steps = [step for step, _ in seen]
        assert steps == sorted(steps)


def test_a_resumed_run_tells_loggers_where_it_goes_on(tmp_path: Path) -> None:
    class Rewound(CSVLogger):
        def rewind(self, step: int) -> None:
            vars(self)["rewound"] = step

    for epochs, resume in ((2, False), (3, True)):
        logger, trainer = Rewound(str(tmp_path)), AdvancedTrainer(max_epochs=epochs)
        trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, loggers=[logger], resume=resume))
        if not resume:
            assert "rewound" not in vars(logger)
            reached = trainer.global_step
    assert vars(logger)["rewound"] == reached > 0


def test_the_items_of_a_model_are_its_own_vectors_or_those_of_the_encoder(cycle_dataset: Dataset) -> None:
    spec = replace(cycle_dataset.spec, item_vectors=np.eye(8, dtype=np.float32))
    own = SASRec(spec, embedding_dim=16)
    found, encoded = item_map(own, cycle_dataset, spec), item_map(toy_model(), cycle_dataset, spec)
    assert found is not None and encoded is not None
    np.testing.assert_allclose(found.vectors, own.encode_items().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(encoded.vectors, np.eye(8))
    assert list(found.titles)[:2] == ["Title 0", "Title 1"] and list(found.item_ids)[:2] == ["i100", "i101"]
    assert found.codes is None
    assert item_map(toy_model(), cycle_dataset, cycle_dataset.spec) is None


def test_semantic_ids_come_along(cycle_dataset: Dataset) -> None:
    codes = np.stack([np.arange(8) % 3, np.arange(8)], axis=1)
    spec = replace(
        cycle_dataset.spec, item_vectors=np.eye(8, dtype=np.float32), semantic_ids=SemanticIds(codes, (3, 8), 1)
    )
    found = item_map(toy_model(), cycle_dataset, spec)
    assert found is not None and found.codes is not None
    np.testing.assert_array_equal(found.codes, codes)
