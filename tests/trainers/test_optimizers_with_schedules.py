"""Every optimizer of conf/ with every schedule of conf/: composed by Hydra, trained, at the rate the schedule says."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from trainer_toys import ToyModel, same_files, timed_dataset, toy_context, toy_model, toy_view

from genrec.artifacts import write_json
from genrec.config import conf_dir, instantiate
from genrec.contracts import GenrecError, RunContext
from genrec.schedulers import Cosine, Linear, Schedule
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import create_trainer
from genrec.trainers.hardware import Hardware
from genrec.trainers.learner import Learner
from genrec.trainers.online import OnlineTrainer

OPTIMIZERS = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
SCHEDULERS = sorted(path.stem for path in (conf_dir() / "scheduler").glob("*.yaml"))

# Six steps, two of warm-up: what each multiplies the rate by two steps after it, worked by hand for the keys given.
WARMUP, MINIMUM, STEPS = 2, 0.1, 6
KEYS_AND_FACTOR: dict[str, tuple[list[str], float]] = {
    "constant": ([], 1.0),
    "cosine": ([], 0.1 + 0.9 / 2),
    "cosine_restarts": (["cycle_length=4"], 0.1 + 0.9 / 2),
    "cyclic": (["cycle_length=4"], 1.0),  # the top of the triangle
    "exponential": (["decay_rate=0.5", "decay_steps=2"], 1 / 2),
    "inverse_sqrt": ([], (2 / 4) ** 0.5),
    "linear": ([], 0.1 + 0.9 / 2),
    "multistep": (["milestones=[1,2]", "gamma=0.5"], 1 / 4),
    "one_cycle": (["rising=0.5"], 1.0),  # the top of the cycle
    "plateau": ([], 1.0),
    "polynomial": ([], 0.1 + 0.9 / 4),
    "step": (["step_size=2", "gamma=0.5"], 1 / 2),
}
VARIANTS = {  # beside each option as it is, what it can also do
    "sgd_nesterov": ["+optimizer=sgd", "optimizer.nesterov=true", "optimizer.weight_decay=0.1"],
    "adagrad_fused": ["+optimizer=adagrad", "optimizer.fused=true"],
    "adamw_plain": ["+optimizer=adamw", "optimizer.fused=false"],
    "rmsprop_centered": ["+optimizer=rmsprop", "optimizer.centered=true", "optimizer.momentum=0.9"],
    "muon_original": ["+optimizer=muon", "optimizer.adjust_lr_fn=original", "optimizer.adamw_lr=0.002"],
}


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir().absolute()), version_base="1.3"):
        yield


def composed(*overrides: str) -> Any:
    """The nodes of the chosen groups alone, as objects."""
    return SimpleNamespace(**instantiate(compose(overrides=list(overrides)), _convert_="all"))


@pytest.fixture(scope="module")
def options(hydra: None) -> Any:
    """Every option of both groups side by side in one config: composing each pair anew would take most of the time."""
    overrides = [f"+optimizer@optimizers.{name}={name}" for name in OPTIMIZERS]
    for name, (keys, _) in KEYS_AND_FACTOR.items():
        overrides.append(f"+scheduler@schedulers.{name}={name}")
        keys = [*keys, f"warmup_steps={WARMUP}", f"min_lr_ratio={MINIMUM}"]
        overrides += [f"schedulers.{name}.{key}" for key in keys]
    return composed(*overrides)


@pytest.fixture(scope="module")
def view() -> Any:
    return toy_view(40)


def learner_of(context: RunContext, view: Any) -> tuple[ToyModel, Learner, Any]:
    """A model with its optimizer and schedule, as training begins."""
    policy, model = AdvancedTrainer(max_epochs=50, max_steps=STEPS, batch_size=64), toy_model()
    policy.context = context
    policy._plan_schedule(model, view, None)
    learner = Learner(policy, model, view)
    return model, learner, learner.configure_optimizers()


def gradient(model: ToyModel, optimizer: torch.optim.Optimizer, batch: Any, losses: list[float]) -> torch.Tensor:
    optimizer.zero_grad()
    loss = model.loss(batch).total
    loss.backward()
    losses.append(float(loss.detach()))
    return loss


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_every_optimizer_with_every_schedule(optimizer_name: str, options: Any, view: Any, tmp_path: Path) -> None:
    assert sorted(KEYS_AND_FACTOR) == SCHEDULERS
    batches = view.train_plan(toy_model(), batch_size=64, seed=1, epoch=1)
    hardware = Hardware(accelerator="cpu")
    build = options.optimizers[optimizer_name]
    for name, (_, factor) in KEYS_AND_FACTOR.items():
        context = toy_context(tmp_path, optimizer=build, scheduler=options.schedulers[name], hardware=hardware)
        model, learner, optimizer = learner_of(context, view)
        before = [weight.detach().clone() for weight in model.parameters()]
        losses: list[float] = []
        rates: list[list[float]] = []
        for step in range(STEPS):
            closure = functools.partial(gradient, model, optimizer, batches[step % len(batches)], losses)
            learner.optimizer_step(0, step, optimizer, closure)
            rates.append([group["lr"] / group["initial_lr"] for group in optimizer.param_groups])
            learner.policy.global_step += 1
        begin = {"one_cycle": 0.1, "cyclic": 0.1}.get(name, 1.0)  # MINIMUM is above the share it would begin with
        assert all(math.isfinite(loss) for loss in losses), name
        assert rates[0] == pytest.approx([begin / WARMUP] * len(rates[0])), name
        assert rates[WARMUP + 2] == pytest.approx([factor] * len(rates[0])), name
        assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), name


class Rates(pl.Callback):
    """Remembers the factor on the rate at every step, and the epoch it was in."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen.append((pl_module.policy.current_epoch, group["lr"] / group["initial_lr"]))


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "plateau"])
def test_a_run_follows_its_schedule_by_step_or_by_epoch(name: str, interval: str, view: Any, tmp_path: Path) -> None:
    keys = [*KEYS_AND_FACTOR[name][0], "warmup_steps=1", f"min_lr_ratio={MINIMUM}", f"interval={interval}"]
    schedule: Schedule = composed(f"+scheduler={name}", *(f"scheduler.{key}" for key in keys)).scheduler
    rates = Rates()
    context = toy_context(tmp_path, scheduler=schedule, callbacks=[rates], hardware=Hardware(accelerator="cpu"))
    trainer = AdvancedTrainer(max_epochs=4, batch_size=128, max_eval_users=2, k_values=[10])
    trainer.fit(toy_model(), view, context)
    per_epoch = trainer.steps_per_epoch
    assert per_epoch > 1 and len(rates.seen) == 4 * per_epoch
    for step, (epoch, factor) in enumerate(rates.seen):
        assert epoch == step // per_epoch + 1
        expected = schedule.factor(epoch - 1, 4) if interval == "epoch" else schedule.factor(step, 4 * per_epoch)
        assert factor == pytest.approx(expected)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}, {"max_steps": 7}], ids=str)
@pytest.mark.parametrize("kind", ["simple", "advanced", "curriculum", "apr", "online"])
def test_the_last_step_of_a_run_is_that_of_its_schedule(kind: str, options: dict[str, int], tmp_path: Path) -> None:
    trainer = create_trainer(kind, max_epochs=3, batch_size=64, k_values=[10], **options)
    rates, schedule = Rates(), Linear(min_lr_ratio=0.0)
    context = toy_context(tmp_path, scheduler=schedule, callbacks=[rates], hardware=Hardware(accelerator="cpu"))
    trainer.fit(toy_model(), timed_dataset(toy_view(40)), context)
    factors = [factor for _, factor in rates.seen]
    assert trainer.global_step == trainer.total_steps > 5
    assert factors[-1] == pytest.approx(1 / trainer.total_steps) and len(set(factors)) == trainer.total_steps


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_slices_of_unlike_length_are_counted_after_a_resume_as_well(interval: Any, tmp_path: Path) -> None:
    data, schedule = timed_dataset(toy_view(40)), Cosine(interval=interval)
    context = toy_context(tmp_path, scheduler=schedule, hardware=Hardware(accelerator="cpu"))
    options: dict[str, Any] = {"max_epochs": 4, "batch_size": 16, "checkpoint_every_steps": 2}
    with pytest.raises(Killed):
        OnlineTrainer(**options).fit(toy_model(), data, replace(context, callbacks=[KilledAt(15)]))
    trainer, rates = OnlineTrainer(**options), Rates()
    trainer.fit(toy_model(), data, replace(context, resume=True, callbacks=[rates]))
    assert trainer.global_step == trainer.total_steps == 14 + len(rates.seen) and trainer.total_epochs == 4
    length = 4 if interval == "epoch" else trainer.total_steps
    assert rates.seen[-1][1] == pytest.approx(schedule.factor(length - 1, length))


def test_max_steps_shortens_the_epochs_that_a_schedule_counts(view: Any, tmp_path: Path) -> None:
    schedule = composed("+scheduler=linear", "scheduler.interval=epoch").scheduler
    trainer = AdvancedTrainer(max_epochs=50, max_steps=7, batch_size=128, max_eval_users=2)
    trainer.fit(toy_model(), view, toy_context(tmp_path, scheduler=schedule))
    assert trainer.total_epochs == math.ceil(7 / trainer.steps_per_epoch)


def test_a_warm_up_that_outlasts_the_run_is_mentioned(view: Any, tmp_path: Path, caplog: Any) -> None:
    schedule = composed("+scheduler=linear", "scheduler.warmup_steps=500").scheduler
    AdvancedTrainer(max_epochs=1, max_steps=2, max_eval_users=2).fit(
        toy_model(), view, toy_context(tmp_path, scheduler=schedule)
    )
    assert "Lower scheduler.warmup_steps" in caplog.text


# ---- resume ---------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "max_epochs": 2,
    "batch_size": 64,
    "checkpoint_every_steps": 2,
    "max_eval_users": 5,
    "k_values": [10],
    "parameter_groups": [{"match": "out.*", "lr_scale": 0.5}, {"match": "norm.bias", "lr_scale": 0.0}],
}


class Killed(BaseException):
    pass


class KilledAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


def run(context: RunContext, view: Any) -> None:
    trainer, model = AdvancedTrainer(**OPTIONS), toy_model()
    result = trainer.fit(model, view, context)
    write_json(context.output_dir / "metrics.json", {"history": result.history})


@pytest.mark.parametrize("name", [*OPTIMIZERS, *VARIANTS])
def test_a_killed_run_ends_with_the_same_bits(name: str, view: Any, tmp_path: Path) -> None:
    overrides = VARIANTS.get(name, [f"+optimizer={name}"])
    node = composed(*overrides, "+scheduler=one_cycle", "scheduler.warmup_ratio=0.2")
    hardware = Hardware(accelerator="cpu")
    whole = toy_context(tmp_path / "whole", optimizer=node.optimizer, scheduler=node.scheduler, hardware=hardware)
    run(whole, view)
    cut = replace(whole, output_dir=tmp_path / "cut", resume=True)
    with pytest.raises(Killed):
        run(replace(cut, callbacks=[KilledAt(5)]), view)
    run(cut, view)
    same_files(tmp_path / "whole", tmp_path / "cut", ["best_model.pt", "final_model.pt"])


@pytest.mark.parametrize("change", ["optimizer=sgd", "optimizer.lr=0.5", "groups"])
def test_a_run_is_not_continued_by_another_optimizer(change: str, view: Any, tmp_path: Path) -> None:
    context = toy_context(tmp_path, optimizer=composed("+optimizer=adamw").optimizer, hardware=Hardware())
    with pytest.raises(Killed):
        run(replace(context, callbacks=[KilledAt(5)]), view)
    overrides = {"optimizer=sgd": ["+optimizer=sgd"], "optimizer.lr=0.5": ["+optimizer=adamw", change]}.get(change)
    other = composed(*(overrides or ["+optimizer=adamw"])).optimizer
    options = {**OPTIONS, "parameter_groups": []} if change == "groups" else OPTIONS
    with pytest.raises(GenrecError, match="another optimizer, other settings of it, or other parameter groups"):
        AdvancedTrainer(**options).fit(toy_model(), view, replace(context, optimizer=other, resume=True))
