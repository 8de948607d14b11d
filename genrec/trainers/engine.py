"""Building the only ``pl.Trainer``, and keeping Lightning's voice down."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from genrec.trainers.strategy import strategy_options

if TYPE_CHECKING:
    from genrec.trainers.base import BaseTrainer
    from genrec.trainers.hardware import Hardware

_TALKATIVE = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


def build_engine(
    policy: BaseTrainer, hardware: Hardware, loggers: Sequence[Any], *, max_epochs: int | None = None
) -> pl.Trainer:
    """An engine that only turns batches into steps: validation, stopping and checkpoints are the trainer's own.

    Its counters start where the run stands, so that callbacks see the true epoch and step after a resume.
    """
    engine = pl.Trainer(
        **{**hardware.engine_options(), **strategy_options(hardware, by_hand=policy.averages_gradients)},
        logger=list(loggers) or False,
        callbacks=policy.extra_callbacks,
        max_epochs=max_epochs or policy.max_epochs,
        max_steps=-1 if policy.evaluation_due else policy.max_steps or -1,
        accumulate_grad_batches=policy.accumulate_grad_batches,
        gradient_clip_val=policy.gradient_clip_norm,
        log_every_n_steps=policy.log_every_steps,
        reload_dataloaders_every_n_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Batches are frozen dataclasses, which Lightning's conversion refuses; models bring them to their own precision.
    engine.precision_plugin.convert_input = lambda data: data
    # Signals are the run's own business (``genrec.interruption``); Lightning would requeue jobs of Slurm its own way.
    engine._signal_connector.register_signal_handlers = lambda: None
    for counter in ("ready", "started", "processed", "completed"):
        setattr(engine.fit_loop.epoch_progress.current, counter, policy.current_epoch)
    steps = engine.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    steps.ready = steps.completed = policy.global_step
    engine.fit_loop.epoch_loop._batches_that_stepped = policy.global_step
    return engine


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hides Lightning's notes about devices, tips and data loader workers; its errors remain."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def show_log() -> None:
    """Makes the training lines visible in a notebook or script that has not set up logging."""
    root = logging.getLogger("genrec")
    if not root.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    if root.level == logging.NOTSET:
        root.setLevel(logging.INFO)
