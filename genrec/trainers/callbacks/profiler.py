"""A window of training steps under PyTorch's profiler."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from torch.profiler import ProfilerActivity, profile

from genrec.artifacts import write_text
from genrec.contracts import GenrecError

logger = logging.getLogger("genrec.trainers")


class ProfilerWindow(pl.Callback):
    """Profiles ``num_batches`` batches after the first ``skip_batches``, once per run.

    The run folder gets ``profile/operators.txt``, the costliest operators, and ``profile/trace.json``, which Perfetto
    and chrome://tracing draw.
    """

    def __init__(self, *, skip_batches: int = 10, num_batches: int = 10, rows: int = 30) -> None:
        for name, value, least in (
            ("skip_batches", skip_batches, 0),
            ("num_batches", num_batches, 1),
            ("rows", rows, 1),
        ):
            if value < least:
                raise GenrecError(f"{name}={value}: give a number of {least} or more.")
        self.skip_batches = skip_batches
        self.num_batches = num_batches
        self.rows = rows
        self._seen = 0
        self._profiler: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.resumed is None:  # a run begins
            self._seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._seen == self.skip_batches and pl_module.world.leads:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (pl_module.device.type == "cuda")
            self._profiler = profile(activities=activities)
            self._profiler.start()
        self._seen += 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._profiler is not None and self._seen == self.skip_batches + self.num_batches:
            self._write(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._profiler is not None:  # training ended within the window
            self._write(pl_module)

    def _write(self, learner: Any) -> None:
        self._profiler.stop()
        folder = learner.policy.context.output_dir / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        order = "self_cuda_time_total" if learner.device.type == "cuda" else "self_cpu_time_total"
        table = self._profiler.key_averages().table(sort_by=order, row_limit=self.rows, max_name_column_width=60)
        write_text(folder / "operators.txt", table)
        self._profiler.export_chrome_trace(str(folder / "trace.json"))
        self._profiler = None
        logger.info("Profile of %d batches written to %s", self._seen - self.skip_batches, folder)
