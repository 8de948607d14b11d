"""Logs the norm of the gradient before clipping."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from genrec.contracts import GenrecError
from genrec.optimizers import gradient_values, scaler_of
from genrec.trainers.division import full


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
        together = getattr(pl_module, "divides", False)  # then all processes measure what one of them logs
        if step % self.every_steps or not (trainer.loggers or together):
            return
        norm = float(full(torch.nn.utils.get_total_norm(gradient_values(pl_module.parameters()))))
        scaler = scaler_of(trainer.precision_plugin, optimizer)
        if scaler is not None:
            norm /= scaler.get_scale()
        for logger in trainer.loggers:
            logger.log_metrics({"train/gradient_norm": norm}, step)
