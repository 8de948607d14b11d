"""Logs how much memory a run takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytorch_lightning as pl
import torch

_STATUS = Path("/proc/self/status")
_MEGABYTE = 1e6


class MemoryUse(pl.Callback):
    """Sends ``memory/resident_mb`` and, of training so far, ``memory/peak_mb`` of the process to the loggers after each
    epoch (Linux), and ``memory/gpu_peak_mb``, the most that was allocated on the GPU since the epoch before. Megabytes
    are 10^6 bytes."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = resident_memory()
        if pl_module.device.type == "cuda":
            metrics["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(pl_module.device) / _MEGABYTE
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)


def resident_memory() -> dict[str, float]:
    """Resident memory of this process now and at its highest, in megabytes; nothing where the system does not say."""
    if not _STATUS.exists():
        return {}
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE))
    names = {"VmRSS": "memory/resident_mb", "VmHWM": "memory/peak_mb"}
    return {name: int(found[key]) * 1024 / _MEGABYTE for key, name in names.items() if key in found}
