from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import DataSpec, GenrecError
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.models.popularity import Popularity
from genrec.schedulers import Linear
from genrec.trainers.advanced import AdvancedTrainer, readable


class Scripted(AdvancedTrainer):
    """Validation values come from a list, so that every decision has a known answer."""

    values: tuple[float, ...] = ()
    metric = "val/recall@10"

    def evaluate(self, model: Any, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
        if part == "test":
            return super().evaluate(model, view, part, progress=progress)
        self.weights = [*getattr(self, "weights", []), {k: v.clone() for k, v in model.state_dict().items()}]
        return {self.metric: self.values[self.current_epoch - 1]}


def scripted(values: list[float], metric: str = "val/recall@10", **options: Any) -> Scripted:
    trainer = Scripted(max_epochs=len(values), monitor=metric, **options)
    trainer.values, trainer.metric = tuple(values), metric
    return trainer


def test_best_weights_restored_only_if_early_stopping_fired(tmp_path: Path) -> None:
    trainer, model = scripted([0.1, 0.5, 0.3], patience=10), toy_model()
    result = trainer.fit(model, toy_view(), toy_context(tmp_path))
    assert (result.stopped_early, result.best_epoch, result.best_value) == (False, 2, 0.5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, trainer.weights[1][name])
    final = torch.load(tmp_path / "checkpoints" / "final_model.pt", weights_only=True)
    assert torch.equal(final["items.weight"], trainer.weights[2]["items.weight"])


def test_the_test_runs_on_the_best_weights_and_tells_their_validation(tmp_path: Path) -> None:
    trainer, model, view = scripted([0.1, 0.9, 0.3], patience=1), toy_model(), toy_view()
    trainer.fit(model, view, toy_context(tmp_path))
    tested = trainer.test(model, view)
    best = toy_model(seed=9)
    best.load_state_dict(torch.load(tmp_path / "checkpoints" / "best_model.pt", weights_only=True))
    again = AdvancedTrainer().test(best, view, toy_context(tmp_path))
    assert tested["val/recall@10"] == 0.9
    assert {name: tested[name] for name in again} == again


def test_early_stopping_counts_validations_and_min_delta(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.205, 0.209, 0.9]
    result = scripted(values, patience=2, min_delta=0.01).fit(toy_model(), toy_view(), toy_context(tmp_path / "a"))
    assert (result.epochs, result.best_epoch, result.stopped_early) == (4, 2, True)
    result = scripted(values, patience=2).fit(toy_model(), toy_view(), toy_context(tmp_path / "b"))
    assert (result.epochs, result.best_epoch) == (5, 5)
    result = scripted([0.5, 0.1, 0.1, 0.1], patience=None).fit(toy_model(), toy_view(), toy_context(tmp_path / "c"))
    assert result.epochs == 4


@pytest.mark.parametrize(
    ("metric", "options", "epochs"),
    [
        ("val/recall@10", {"stopping_threshold": 0.4}, 3),
        ("val/recall@10", {"divergence_threshold": 0.2}, 1),
        ("val/recall@10", {"divergence_threshold": 0.1}, 4),
        ("val/loss", {"stopping_threshold": 0.1}, 1),
        ("val/loss", {"stopping_threshold": 0.05}, 4),
        ("val/loss", {"divergence_threshold": 0.3}, 3),
    ],
)
def test_thresholds_stop_in_the_metric_s_own_direction(
    metric: str, options: dict[str, float], epochs: int, tmp_path: Path
) -> None:
    trainer = scripted([0.1, 0.3, 0.4, 0.9], metric, patience=None, **options)
    result = trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert (result.epochs, result.stopped_early) == (epochs, epochs < 4)
    best = max if trainer.direction == "max" else min
    assert result.best_value == best([0.1, 0.3, 0.4, 0.9][:epochs])


@pytest.mark.parametrize("metric", ["val/mse", "val/loss"])
def test_mse_maximised(metric: str, tmp_path: Path) -> None:
    result = scripted([0.5, 0.2, 0.4], metric).fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert (result.best_epoch, result.best_value) == (2, 0.2)


def test_the_direction_can_be_forced(tmp_path: Path) -> None:
    result = scripted([0.5, 0.2, 0.4], mode="min").fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert result.best_epoch == 2


@pytest.mark.parametrize("monitor", ["val/recall@7", "val/ndcg@3", "val_hit@1"])
def test_val_recall_10_hard_coded_so_another_eval_k_stops_at_once(monitor: str, tmp_path: Path) -> None:
    trainer = AdvancedTrainer(max_epochs=3, monitor=monitor, k_values=[5])
    result = trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert result.epochs == 3
    assert result.best_value == max(result.history[monitor.replace("val_", "val/")])


def test_an_unknown_monitor_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"val/precison@10.*val/recall@10"):
        AdvancedTrainer(monitor="val/precison@10").fit(toy_model(), toy_view(), toy_context(tmp_path))


def test_a_non_finite_metric_stops(tmp_path: Path) -> None:
    result = scripted([0.5, float("nan"), 0.9]).fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert (result.epochs, result.best_epoch, result.history["val/recall@10"]) == (2, 1, [0.5])


def test_save_top_k_that_is_not_the_top_k(tmp_path: Path) -> None:
    trainer = scripted([0.3, 0.1, 0.5, 0.2, 0.4, 0.0], save_top_k=3, patience=None)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint_epoch_*.pt"))
    assert kept == ["checkpoint_epoch_0001.pt", "checkpoint_epoch_0003.pt", "checkpoint_epoch_0005.pt"]
    saved = torch.load(tmp_path / "checkpoints" / kept[1], weights_only=True)
    assert torch.equal(saved["items.weight"], trainer.weights[2]["items.weight"])


def test_periodic_checkpoints_written_only_when_best(tmp_path: Path) -> None:
    trainer = scripted([0.9, 0.1, 0.1, 0.1], checkpoint_every_epochs=2, save_top_k=2, patience=None)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint_epoch_*.pt"))
    assert kept == ["checkpoint_epoch_0001.pt", "checkpoint_epoch_0002.pt", "checkpoint_epoch_0004.pt"]


def test_the_plateau_halves_the_rate_down_to_min_lr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = scripted([0.5] * 6, patience=None, lr_patience=1, lr_factor=0.5, min_lr=0.003)
    optimizer = functools.partial(torch.optim.SGD, lr=0.01)
    with caplog.at_level(logging.INFO, "genrec.trainers"):
        trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, optimizer=optimizer))
    rates = [m.group(1) for m in (re.match(r"Current learning rate: (\S+)$", line) for line in caplog.messages) if m]
    assert rates == ["0.010000", "0.010000", "0.010000", "0.005000", "0.005000", "0.003000"]


@pytest.mark.parametrize("options", [{"use_scheduler": False}, {"scheduler": Linear(min_lr_ratio=1.0)}])
def test_the_plateau_is_off_when_told_or_when_a_schedule_is_given(options: dict[str, Any], tmp_path: Path) -> None:
    use = options.get("use_scheduler", True)
    trainer = scripted([0.5] * 4, patience=None, lr_patience=0, use_scheduler=use)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, scheduler=options.get("scheduler")))
    assert trainer._learner.schedule.factor(0, 10) == 1.0


def test_printed_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "genrec.trainers"):
        AdvancedTrainer(max_epochs=2).fit(toy_model(), toy_view(), toy_context(tmp_path))
    text = "\n".join(caplog.messages)
    number = r"\d\.\d{4}"
    assert re.search(
        rf"^Epoch 1/2 - train_loss: {number}, val_recall@10: {number}, val_ndcg@10: {number} \(", text, re.M
    )
    assert re.search(rf"^New best model! Val Recall@10: {number}$", text, re.M)
    assert f"Training completed. Model saved to {tmp_path / 'checkpoints'}" in text


def test_validation_every_other_epoch_and_in_the_last(tmp_path: Path) -> None:
    result = AdvancedTrainer(max_epochs=3, eval_every_epochs=2).fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert len(result.history["val/recall@10"]) == 2
    assert len(result.history["train/loss"]) == 3


def test_the_loss_that_is_told_is_that_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    trainer = scripted([0.1, 0.9, 0.2, 0.3])
    result = trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    losses = result.history["train/loss"]
    assert trainer.chosen_metrics["train/loss"] == losses[1] != losses[-1]


def test_without_validation_users_the_last_weights_are_kept(tmp_path: Path) -> None:
    view = toy_view()
    nothing = Ragged.from_lengths(view.val.values[:0], view.val.lengths * 0)
    result = AdvancedTrainer(max_epochs=2).fit(
        toy_model(), SequencesView(view.train, nothing, view.test, view.num_items), toy_context(tmp_path)
    )
    assert (result.epochs, result.best_epoch) == (2, 0)


def test_validation_does_not_change_what_is_learned(tmp_path: Path) -> None:
    models = [toy_model(), toy_model()]
    for every, model in zip((1, 3), models, strict=True):
        trainer = AdvancedTrainer(max_epochs=3, eval_every_epochs=every, use_scheduler=False)
        trainer.fit(model, toy_view(), toy_context(tmp_path / str(every)))
    files = [torch.load(tmp_path / every / "checkpoints" / "final_model.pt", weights_only=True) for every in "13"]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


@pytest.mark.parametrize(
    ("name", "mode"), [("val/rmse", "min"), ("train/loss/buy", "min"), ("train/kl", "min"), ("val/ndcg@10", "max")]
)
def test_the_direction_is_that_of_the_monitor_unless_told(name: str, mode: str) -> None:
    assert AdvancedTrainer(monitor=name).direction == mode
    assert AdvancedTrainer(monitor=name, mode="max").direction == "max"


def test_readable() -> None:
    assert [readable(name) for name in ("val/recall@10", "val/ndcg@5", "val/loss")] == [
        "Val Recall@10",
        "Val NDCG@5",
        "Val Loss",
    ]


@pytest.mark.parametrize("options", [{"patience": 0}, {"mode": "up"}, {"save_top_k": -1}, {"eval_every_epochs": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=next(iter(options))):
        AdvancedTrainer(**options)


def test_a_model_without_training_is_validated_too(tmp_path: Path) -> None:
    """Otherwise a sweep over models has nothing to compare the untrained ones by."""
    view = toy_view()
    model = Popularity(DataSpec(view.num_users, view.num_items, train=view.train))
    trainer, context = AdvancedTrainer(), toy_context(tmp_path)
    assert trainer.fit(model, view, context).history == {}
    final = trainer.test(model, view, context)
    assert final["val/recall@10"] == trainer.validate(model, view, context)["val/recall@10"]
    assert "test/recall@10" in final
