"""Logs the norm of the gradient before clipping."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from genrec.contracts import GenrecError


class GradientNorm(pl.Callback):
    """Sends ``train/gradient_norm`` to the loggers every ``every_steps`` optimizer steps."""

    def __init__(self, *, every_steps: int = 50) -> None:
        if every_steps < 1:
            raise GenrecError(f"every_steps={every_steps}: give a number of optimizer steps of 1 or more.")
        self.every_steps = every_steps

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        step = trainer.global_step + 1
        if step % self.every_steps or not trainer.loggers:
            return
        gradients: list[Any] = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        for logger in trainer.loggers:
            logger.log_metrics({"train/gradient_norm": norm}, step)
