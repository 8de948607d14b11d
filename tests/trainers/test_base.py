from __future__ import annotations

import functools
import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import ToyModel, toy_context, toy_model, toy_view

from genrec.contracts import DataSpec, GenrecError, Losses, SequenceBatch
from genrec.schedulers import Cosine, Plateau
from genrec.trainers import AdvancedTrainer, BaseTrainer, Hardware, SimpleTrainer, create_trainer


def fitted(
    folder: Path, view: Any = None, context: dict[str, Any] | None = None, **options: Any
) -> dict[str, torch.Tensor]:
    model = toy_model()
    BaseTrainer(**{"max_epochs": 2, "batch_size": 64, **options}).fit(
        model, view or toy_view(), toy_context(folder, **context or {})
    )
    return model.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns_and_is_bitwise_repeatable(tmp_path: Path) -> None:
    first = fitted(tmp_path / "a", max_epochs=3)
    torch.rand(100)  # what happened before in the process does not matter
    assert equal(first, fitted(tmp_path / "b", max_epochs=3))
    assert not equal(first, fitted(tmp_path / "c", max_epochs=3, context={"seed": 7}))


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({"max_epochs": 3}, {}),
        ({"max_steps": 3}, {}),
        ({"batch_size": 32}, {}),
        ({"gradient_clip_norm": 1e-4}, {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)}),
        ({"accumulate_grad_batches": 2}, {}),
        ({}, {"scheduler": Cosine()}),
        ({}, {"optimizer": functools.partial(torch.optim.Adagrad, lr=0.1)}),
        ({}, {"hardware": Hardware(precision="bf16-mixed")}),
    ],
)
def test_declared_options_nobody_reads(options: dict[str, Any], context: dict[str, Any], tmp_path: Path) -> None:
    plain = {key: value for key, value in context.items() if key == "optimizer" and options}
    assert not equal(fitted(tmp_path / "a", context=plain), fitted(tmp_path / "b", context=context, **options))


def test_embeddings_are_spared_weight_decay_by_choice(tmp_path: Path) -> None:
    context = {"optimizer": functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=5.0)}
    with_decay = fitted(tmp_path / "a", context=context)
    without = fitted(tmp_path / "b", context=context, decay_embeddings=False)
    assert without["items.weight"].norm() > 1.05 * with_decay["items.weight"].norm()


def test_max_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    trainer = AdvancedTrainer(max_epochs=5, max_steps=7, batch_size=64)
    result = trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert trainer.global_step == 7
    assert result.best_epoch > 0


def test_the_train_loss_is_the_mean_over_samples_and_not_over_batches(tmp_path: Path) -> None:
    class Known(ToyModel):
        def loss(self, batch: SequenceBatch) -> Losses:
            rows = len(batch.users)
            return Losses(self.out.bias.sum() * 0 + float(rows), rows)

    sizes: list[int] = []
    view = toy_view()
    plan = view.train_plan(Known(), batch_size=50, seed=42, epoch=1)
    sizes = [len(plan[index].users) for index in range(len(plan))]
    result = BaseTrainer(max_epochs=1, batch_size=50).fit(Known(), view, toy_context(tmp_path))
    assert len(set(sizes)) > 1
    assert result.history["train/loss"] == [pytest.approx(sum(size * size for size in sizes) / sum(sizes))]


def test_hooks_and_attributes(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watching(AdvancedTrainer):
        def on_epoch_start(self) -> None:
            seen.append(self.current_epoch)
            self.batch_size = 32 * self.current_epoch

        def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
            seen.append((self.global_step, "train/loss" in train_metrics, "val/recall@10" in eval_metrics))
            return self.current_epoch == 2

    trainer = Watching(max_epochs=5, batch_size=32)
    result = trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    steps = [entry[0] for entry in seen if isinstance(entry, tuple)]
    assert [entry for entry in seen if isinstance(entry, int)] == [1, 2]
    assert steps[0] == trainer.steps_per_epoch > steps[1] - steps[0]  # larger batches in the second epoch
    assert (result.epochs, result.stopped_early) == (2, True)
    assert len(trainer.metrics_history["train/loss"]) == 2


def test_a_loss_of_one_s_own(tmp_path: Path) -> None:
    class Doubled(BaseTrainer):
        def train_step(self, model: Any, batch: Any) -> Losses:
            losses = model.loss(batch)
            return Losses(losses.total * 2, losses.count)

    result = Doubled(max_epochs=1).fit(toy_model(dropout=0.0), toy_view(), toy_context(tmp_path))
    assert result.history["train/loss"][0] > 6.0  # twice log(30) = 3.4


def test_a_model_without_parameters_is_only_evaluated(tmp_path: Path) -> None:
    from genrec.models.popularity import Popularity

    view = toy_view()
    model = Popularity(DataSpec(view.num_users, view.num_items, train=view.train))
    trainer = AdvancedTrainer()
    assert trainer.fit(model, view, toy_context(tmp_path)).history == {}
    assert 0 < trainer.test(model, view)["test/recall@10"] < 1


def test_a_diverged_run_without_good_weights_fails(tmp_path: Path) -> None:
    optimizer = functools.partial(torch.optim.SGD, lr=1e30)
    trainer = SimpleTrainer(max_epochs=5, gradient_clip_norm=None)
    with pytest.raises(GenrecError, match=r"not finite at step \d+ \(epoch 1.*lower optimizer\.lr \(1e\+30"):
        trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, optimizer=optimizer))
    assert trainer.current_epoch == 1 and (tmp_path / "bad_batch.npz").exists()


def test_without_a_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = SimpleTrainer(max_epochs=1)
    model = toy_model()
    trainer.fit(model, toy_view())
    trainer.test(model, toy_view())
    assert len(list(tmp_path.glob("outputs/python/*/checkpoints/final_model.pt"))) == 1


def test_data_sets_give_the_view_that_the_model_asks_for(tmp_path: Path) -> None:
    class Data:
        def view(self, name: str) -> Any:
            return {"sequences": toy_view()}[name]

    model = toy_model()
    assert "test/recall@10" in AdvancedTrainer().test(model, Data(), toy_context(tmp_path))
    with pytest.raises(GenrecError, match="neither a data set nor a view"):
        AdvancedTrainer().fit(model, [1, 2], toy_context(tmp_path))


def test_extra_callbacks_are_called_and_lightning_is_quiet(tmp_path: Path, capfd: Any, recwarn: Any) -> None:
    import pytorch_lightning as pl

    epochs: list[int] = []

    class Counting(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            epochs.append(trainer.current_epoch)

    gc.collect()  # what earlier tests have left open
    recwarn.clear()
    capfd.readouterr()
    BaseTrainer(max_epochs=2).fit(toy_model(), toy_view(), toy_context(tmp_path, callbacks=[Counting()]))
    assert epochs == [0, 1]
    assert "".join(capfd.readouterr()) == ""
    assert [str(found.message) for found in recwarn if not issubclass(found.category, ResourceWarning)] == []


def test_simple_labels_recall_as_memorisation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, model, view = SimpleTrainer(max_epochs=2), toy_model(), toy_view()
    with caplog.at_level(logging.INFO, "genrec.trainers"):
        trainer.fit(model, view, toy_context(tmp_path))
    final = trainer.test(model, view)
    assert f"Epoch 2/2 - Loss: {final['train/loss']:.4f}, Recall@10: {final['train/recall@10']:.4f}" in caplog.text
    assert "memorisation" in caplog.text
    assert not [name for name in final if name.startswith("val/")]
    best, last = (
        torch.load(tmp_path / "checkpoints" / f"{name}_model.pt", weights_only=True) for name in ("best", "final")
    )
    assert equal(best, last)


def test_plateau_without_validation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="plateau"):
        SimpleTrainer().fit(toy_model(), toy_view(), toy_context(tmp_path, scheduler=Plateau()))


def test_create_trainer() -> None:
    assert create_trainer("simple", max_epochs=3) == SimpleTrainer(max_epochs=3)
    with pytest.raises(GenrecError, match=r"'advancd'.*simple, advanced, rqvae, tiger"):
        create_trainer("advancd")


@dataclass(kw_only=True)
class CurriculumTrainer(AdvancedTrainer):
    """The documented example of a policy: harder data later."""

    def on_epoch_start(self) -> None:
        self.difficulty = [0.2, 0.4, 0.6, 0.8, 1.0][min(self.current_epoch // 10, 4)]


def test_a_policy_of_one_s_own(tmp_path: Path) -> None:
    trainer = CurriculumTrainer(max_epochs=1)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert trainer.difficulty == 0.2


@pytest.mark.parametrize(
    "options", [{"max_epochs": 0}, {"k_values": []}, {"batch_size": -3}, {"checkpoint_every_steps": 0}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=next(iter(options))):
        SimpleTrainer(**options)
