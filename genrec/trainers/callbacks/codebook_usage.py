"""Watches how much of its codebooks a tokenizer uses while it trains."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch

from genrec.contracts import GenrecError
from genrec.metrics.codebook import evaluate_quantization
from genrec.nn.several import alone
from genrec.trainers.evaluation import evaluating

logger = logging.getLogger("genrec.trainers")


class CodebookUsage(pl.Callback):
    """Every ``every_epochs`` codes all items and sends ``codebook/usage_rate``, ``codebook/unique_codes`` and the
    perplexities, overall and per level, to the loggers; below a usage of ``warn_below`` it says so."""

    def __init__(self, *, every_epochs: int = 1, warn_below: float = 0.5, batch_size: int = 4096) -> None:
        if every_epochs < 1 or batch_size < 1:
            raise GenrecError(f"every_epochs={every_epochs}, batch_size={batch_size}: give numbers of 1 or more.")
        if not 0.0 <= warn_below <= 1.0:
            raise GenrecError(f"warn_below={warn_below}: give a share from 0 to 1.")
        self.every_epochs = every_epochs
        self.warn_below = warn_below
        self.batch_size = batch_size

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not hasattr(pl_module.model, "encode") or not hasattr(pl_module.model, "codebook_sizes"):
            raise GenrecError(
                f"The callback codebook_usage watches models that code items, and {type(pl_module.model).__name__} "
                "codes none. Use model=rqvae, or another choice of callbacks."
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        epoch = pl_module.policy.current_epoch
        if epoch % self.every_epochs:
            return
        pl_module.bring()
        if not pl_module.world.leads:
            return
        model = pl_module.model
        with alone(), evaluating(model):
            batches = pl_module.view.eval_batches("all", batch_size=self.batch_size)
            codes = torch.cat([model.encode(batch.to(pl_module.device).vectors).cpu() for batch in batches])
        metrics = {
            f"codebook/{name}": value for name, value in evaluate_quantization(codes, model.codebook_sizes).items()
        }
        for sink in trainer.loggers:
            sink.log_metrics(metrics, trainer.global_step)
        usage = metrics["codebook/usage_rate"]
        if usage < self.warn_below:
            logger.warning(
                "Only %.0f%% of the codes are in use after epoch %d. Smaller codebooks, or model.init=kmeans, help.",
                100 * usage, epoch,
            )  # fmt: skip
