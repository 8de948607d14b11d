"""Ranges of optimizers, schedules, clipping and parameter groups: one sentence each, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from genrec.config.command_line import Composer, command_faults


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as made:
        yield made


def faults(composer: Composer, line: str) -> dict[str, str]:
    return {fault.key: str(fault) for fault in command_faults(composer, line.split())}


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("optimizer.betas=[2,3]", "optimizer.betas", "at least 0 and below 1"),
        ("optimizer.betas=[0.9,1]", "optimizer.betas", "at least 0 and below 1"),
        ("optimizer.lr=0", "optimizer.lr", "greater than 0"),
        ("optimizer.eps=0", "optimizer.eps", "greater than 0"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay", "at least 0"),
        ("+optimizer.foreach=true", "optimizer.foreach", "only with optimizer.fused=false"),
        ("optimizer=sgd optimizer.momentum=1", "optimizer.momentum", "below 1"),
        ("optimizer=sgd optimizer.momentum=0 optimizer.nesterov=true", "optimizer.nesterov", "a momentum above 0"),
        ("optimizer=sgd optimizer.dampening=.1 optimizer.nesterov=true", "optimizer.nesterov", "dampening=0"),
        ("optimizer=rmsprop optimizer.alpha=1", "optimizer.alpha", "below 1"),
        ("optimizer=adagrad optimizer.initial_accumulator_value=-1", "optimizer.initial_accumulator_value", "at least"),
        ("optimizer=nadam optimizer.momentum_decay=-1", "optimizer.momentum_decay", "at least 0"),
        ("optimizer=adafactor optimizer.beta2_decay=0.8", "optimizer.beta2_decay", "below 0"),
        ("optimizer=adafactor optimizer.eps=[null,0]", "optimizer.eps", "greater than 0"),
        ("optimizer=adafactor optimizer.d=0.5", "optimizer.d", "at least 1"),
        ("optimizer=lamb optimizer.betas=[0.9,1.0]", "optimizer.betas", "below 1"),
        ("optimizer=muon optimizer.momentum=1", "optimizer.momentum", "below 1"),
        ("optimizer=muon optimizer.adjust_lr_fn=orignal", "optimizer.adjust_lr_fn", "Did you mean original?"),
        ("tokenizer=rqvae tokenizer.optimizer.lr=0", "tokenizer.optimizer.lr", "greater than 0"),
        ("scheduler=cosine scheduler.warmup_steps=-1", "scheduler.warmup_steps", "at least 0"),
        ("scheduler=cosine scheduler.warmup_ratio=1", "scheduler.warmup_ratio", "below 1, or null"),
        ("scheduler=cosine scheduler.min_lr_ratio=1.5", "scheduler.min_lr_ratio", "at most 1"),
        ("scheduler=cosine scheduler.interval=epochs", "scheduler.interval", "Did you mean epoch?"),
        ("scheduler=step scheduler.step_size=0", "scheduler.step_size", "of at least 1"),
        ("scheduler=multistep scheduler.milestones=[]", "scheduler.milestones", "at least 1 entry"),
        ("scheduler=cosine_restarts scheduler.cycle_length=0", "scheduler.cycle_length", "of at least 1"),
        ("scheduler=one_cycle scheduler.rising=1", "scheduler.rising", "below 1"),
        ("scheduler=plateau scheduler.lr_factor=1", "scheduler.lr_factor", "below 1"),
        ("trainer.gradient_clip_norm=0", "trainer.gradient_clip_norm", "greater than 0, or null"),
        ("trainer.gradient_clip_value=-1", "trainer.gradient_clip_value", "greater than 0, or null"),
        ("trainer.parameter_groups=[{lr_scale:0.1}]", "trainer.parameter_groups[0].match", "needs it"),
        ("trainer.parameter_groups=[{match:a,lr_scale:-1}]", "trainer.parameter_groups[0].lr_scale", "at least 0"),
        ("trainer.parameter_groups=[{match:a,lr_scal:1}]", "trainer.parameter_groups[0].lr_scal", "mean lr_scale?"),
        ("trainer.parameter_groups=[a]", "trainer.parameter_groups", "a mapping"),
    ],
)
def test_a_value_out_of_range_is_named_by_its_path(composer: Composer, line: str, key: str, words: str) -> None:
    found = faults(composer, line)
    assert list(found) == [key] and words in found[key]


@pytest.mark.parametrize(
    "line",
    [
        "optimizer.betas=[0,0.999]",
        "optimizer=sgd optimizer.nesterov=true",
        "optimizer=adafactor optimizer.eps=[1e-30,1e-3]",
        "optimizer=muon optimizer.adamw_lr=1e-3 optimizer.adjust_lr_fn=original",
        "scheduler=cosine scheduler.interval=epoch scheduler.total_steps=5",
        "trainer.gradient_clip_norm=null trainer.gradient_clip_value=0.5",
        "trainer.parameter_groups=[{match:'encoder.*',lr_scale:0.1,weight_decay:0},{match:'*',lr_scale:0}]",
    ],
)
def test_a_value_within_its_range_passes(composer: Composer, line: str) -> None:
    assert faults(composer, line) == {}


def test_all_of_it_is_checked_without_torch() -> None:
    code = (
        "import sys\nfrom genrec.config import check, compose_config\n"
        "found = check(compose_config(['optimizer=muon', 'scheduler=one_cycle', 'optimizer.lr=0', "
        "'trainer.parameter_groups=[{match: a, lr_scale: -1}]']))\n"
        "assert len(found) == 2, found\n"
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
