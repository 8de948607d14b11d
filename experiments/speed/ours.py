"""genrec's own training, timed inside its real loop: trainer, Lightning engine, learner, plan, optimizer."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed.measure import Work
from genrec.contracts import Plan, RunContext
from genrec.trainers.base import BaseTrainer
from genrec.trainers.hardware import Hardware

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class SampledPlan:
    """Some batches of an epoch, evenly spaced over all lengths, so that a few steps cost what an epoch's steps do.

    The first ``WARM_UP_STEPS`` batches come twice: once to warm up, once to be timed.
    """

    plan: Plan
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.plan[self.indices[index]]


def sampled(plan: Plan, steps: int | None, *, seed: int = 0) -> SampledPlan:
    """``steps`` batches of the plan (None: all of them) in random order, after those to warm up on."""
    widths = [_width(plan[index]) for index in range(len(plan))]
    by_width = np.argsort(widths, kind="stable")
    steps = min(steps or len(plan), len(plan))
    chosen = by_width[((np.arange(steps) + 0.5) * len(plan) / steps).astype(int)]
    order = np.random.default_rng(seed).permutation(chosen).tolist()
    return SampledPlan(plan, (order * WARM_UP_STEPS)[:WARM_UP_STEPS] + order)


def _width(batch: Any) -> int:
    return int(batch.items.shape[1]) if hasattr(batch, "targets") else 1


def num_targets(batch: Any) -> int:
    """Scored positions of a training batch; edges of a batch of edges; items of a batch of items; rows of a table."""
    if hasattr(batch, "labels"):
        return len(batch)
    if hasattr(batch, "positives"):
        return len(batch.positives)
    return int((batch.targets >= 0).sum()) if hasattr(batch, "targets") else len(batch.items)


@dataclass(kw_only=True)
class StopwatchTrainer(BaseTrainer):
    """A BaseTrainer that trains on a given plan and notes when each step ends."""

    plan: Any = None
    stamps: list[float] = field(default_factory=list)

    def train_plan(self, view: Any, model: nn.Module) -> Plan:
        return self.plan

    def after_batch(self, learner: Any, *, stepped: bool) -> None:
        super().after_batch(learner, stepped=stepped)
        self.stamps.append(time.perf_counter())


class Training:
    """A model's steps over a sampled plan, again and again; a call is one pass over it."""

    def __init__(
        self,
        model: nn.Module,
        view: Any,
        folder: Path,
        *,
        batch_size: int = 256,
        steps: int | None = None,
        precision: str = "32-true",
        compile: bool = False,
        threads: int | None = None,
        epochs: bool = False,
    ) -> None:
        self.model, self.view, self.folder = model, view, folder
        plan = view.train_plan(model, batch_size=batch_size, seed=0, epoch=1)
        self.plan = sampled(plan, steps)
        self.batch_size = batch_size
        self.hardware = Hardware(accelerator="cpu", precision=precision, compile=compile, num_threads=threads)
        timed = [plan[index] for index in self.plan.indices[WARM_UP_STEPS:]]
        self.targets = sum(map(num_targets, timed))
        self.whole = float(sum(num_targets(plan[i]) for i in range(len(plan)))) if epochs else 1.0  # targets a unit has

    def __call__(self) -> Work:
        """Units are targets, or epochs where those were asked for."""
        trainer = StopwatchTrainer(max_epochs=1, batch_size=self.batch_size, plan=self.plan, log_every_steps=10**9)
        optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01, fused=True)
        context = RunContext(
            output_dir=self.folder, seed=0, optimizer=optimizer, hardware=self.hardware, progress=False
        )
        try:
            trainer.fit(self.model, self.view, context)
        finally:
            torch.use_deterministic_algorithms(False)  # our default costs us a little; peers need not pay for it
        seconds = trainer.stamps[-1] - trainer.stamps[WARM_UP_STEPS - 1]
        return Work(self.targets / self.whole, seconds)

    def flops_per_unit(self, batches: int = 6) -> float:
        """Floating-point operations of matrix products, forward and backward, counted on some of the batches."""
        timed = self.plan.indices[WARM_UP_STEPS:]
        chosen = [
            self.plan.plan[timed[i]] for i in np.linspace(0, len(timed) - 1, min(batches, len(timed))).astype(int)
        ]
        self.model.train()
        with FlopCounterMode(display=False) as counter:
            for batch in chosen:
                self.model.loss(batch).total.backward()  # pyright: ignore[reportCallIssue]
        self.model.zero_grad(set_to_none=True)
        return counter.get_total_flops() / sum(map(num_targets, chosen)) * self.whole
