"""Loggers that can fail without taking the run with them, and whose steps never go backwards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

log = logging.getLogger("genrec.trainers")


class GuardedLogger(Logger):
    """Passes everything to a Lightning logger; the first failure is a warning and silences that logger for the run."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.last_step = 0
        self.failed = False

    def _guarded(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.failed:
            return None
        try:
            return getattr(self.inner, method)(*args, **kwargs)
        except Exception as error:
            self.failed = True
            log.warning("%s failed and is switched off for this run: %s", type(self.inner).__name__, error)
            return None

    @property
    def name(self) -> str | None:
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        return self.inner.version

    @property
    def save_dir(self) -> str | None:
        return self.inner.save_dir

    @property
    def experiment(self) -> Any:
        return self.inner.experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.last_step = max(self.last_step, step or 0)
        self._guarded("log_metrics", dict(metrics), self.last_step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._guarded("log_hyperparams", params, *args, **kwargs)

    def save(self) -> None:
        self._guarded("save")

    def finalize(self, status: str) -> None:
        """Nothing: Lightning calls this after fit, but the test metrics are still to come (see ``close_loggers``)."""


class Tracker:
    """All loggers of a run as one. ``rows`` is what was logged once per epoch, kept so that a resumed run can repeat
    it."""

    def __init__(self, loggers: Sequence[Any]) -> None:
        self.loggers = [item if isinstance(item, GuardedLogger) else GuardedLogger(item) for item in loggers]
        self.rows: list[list[Any]] = []

    def log_step(self, metrics: Mapping[str, float], step: int) -> None:
        for item in self.loggers:
            item.log_metrics(metrics, step)

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append([step, dict(metrics)])
        self.log_step(metrics, step)
        for item in self.loggers:
            item.save()

    def replay(self, rows: list[list[Any]]) -> None:
        """Restores the epochs of a resumed run; CSVLogger starts an empty file, so it gets the rows again."""
        self.rows = rows
        for item in self.loggers:
            for step, metrics in rows:
                if isinstance(item.inner, CSVLogger):
                    item.log_metrics(metrics, step)
                item.last_step = max(item.last_step, step)


def log_environment(loggers: Sequence[Any], config: Any, environment: Mapping[str, Any] | None = None) -> None:
    """Sends the resolved config (a plain nested dict) and the environment to every logger."""
    params = {**config, "environment": dict(environment)} if environment else dict(config)
    for item in Tracker(loggers).loggers:
        item.log_hyperparams(params)
        item.save()


def close_loggers(loggers: Sequence[Any], *, success: bool = True) -> None:
    """Ends the loggers at the end of a run; W&B needs it so that the next run of a sweep is a run of its own."""
    for item in Tracker(loggers).loggers:
        item._guarded("finalize", "success" if success else "failed")
        if isinstance(item.inner, WandbLogger) and not item.failed:
            import wandb

            wandb.finish(exit_code=0 if success else 1)
