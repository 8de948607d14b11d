"""Loggers that can fail without taking the run with them, and whose steps never go backwards.

Beyond what Lightning asks of a logger, one may have ``begin(name)``, told a ``RunName`` before anything is logged,
``rewind(step)``, told where a resumed run goes on, ``publish(run)``, told a ``PublishedRun`` at the end, and
``starts_empty``: True where a resumed run has to repeat its epochs. Those in ``genrec.loggers`` do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_fabric.loggers.logger import _DummyExperiment as DummyExperiment
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from genrec.loggers.published import ItemMap, PublishedRun, RunName, name_run
from genrec.trainers.evaluation import evaluating

__all__ = [
    "GuardedLogger",
    "ItemMap",
    "PublishedRun",
    "RunName",
    "Tracker",
    "close_loggers",
    "guard",
    "item_map",
    "log_environment",
    "name_run",
    "publish",
]

log = logging.getLogger("genrec.trainers")


class GuardedLogger(Logger):
    """Passes everything to a Lightning logger; the first failure is a warning and silences that logger for the run."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.last_step = 0
        self.failed = False

    def attempt(self, action: Callable[[], Any], otherwise: Any = None) -> Any:
        """What ``action`` returns; ``otherwise`` where it, or anything before it, failed."""
        if self.failed:
            return otherwise
        try:
            return action()
        except Exception as error:
            self.failed = True
            log.warning("%s failed and is switched off for this run: %s", type(self.inner).__name__, _sentence(error))
            return otherwise

    def _guarded(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.attempt(lambda: getattr(self.inner, method)(*args, **kwargs))

    @property
    def name(self) -> str | None:
        return self.attempt(lambda: self.inner.name)

    @property
    def version(self) -> int | str | None:
        return self.attempt(lambda: self.inner.version)

    @property
    def save_dir(self) -> str | None:
        return self.attempt(lambda: self.inner.save_dir)

    @property
    def experiment(self) -> Any:
        """What the logger writes with, guarded as well; something that does nothing once the logger has failed."""
        found = self.attempt(lambda: self.inner.experiment)
        return DummyExperiment() if found is None else _GuardedExperiment(self, found)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.last_step = max(self.last_step, step or 0)
        self._guarded("log_metrics", dict(metrics), self.last_step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._guarded("log_hyperparams", params, *args, **kwargs)

    def save(self) -> None:
        self._guarded("save")

    def begin(self, name: RunName) -> None:
        self._hook("begin", name)

    def publish(self, run: PublishedRun) -> None:
        self._hook("publish", run)

    def rewind(self, step: int) -> None:
        self._hook("rewind", step)

    def _hook(self, method: str, told: Any) -> None:
        """Calls what only some loggers have."""
        self.attempt(lambda: getattr(self.inner, method, lambda _: None)(told))

    @property
    def starts_empty(self) -> bool:
        """Whether a resumed run finds nothing of its first part in this logger."""
        return isinstance(self.inner, CSVLogger) or bool(
            self.attempt(lambda: getattr(self.inner, "starts_empty", False))
        )

    def finalize(self, status: str) -> None:
        """Nothing: Lightning calls this after fit, but the test metrics are still to come (see ``close``)."""

    def close(self, status: str) -> None:
        """Ends the logger; one that has failed gets the chance to let go of what it holds."""
        if self.failed:
            try:
                self.inner.finalize("failed")
            except Exception as error:
                log.debug("%s could not be closed: %s", type(self.inner).__name__, error)
        self._guarded("finalize", status)


class _GuardedExperiment:
    """What a logger writes with: a call that fails switches the logger off."""

    def __init__(self, guard: GuardedLogger, inner: Any) -> None:
        self._guard = guard
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._guard.attempt(lambda: found(*args, **kwargs))


class Tracker:
    """All loggers of a run as one. ``rows`` is what was logged once per epoch, kept so that a resumed run can repeat
    it."""

    def __init__(self, loggers: Sequence[Any]) -> None:
        self.loggers = guard(loggers)
        self.rows: list[list[Any]] = []

    def log_step(self, metrics: Mapping[str, float], step: int) -> None:
        for item in self.loggers:
            item.log_metrics(metrics, step)

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append([step, dict(metrics)])
        self.log_step(metrics, step)
        for item in self.loggers:
            item.save()

    def replay(self, rows: list[list[Any]], step: int = 0) -> None:
        """Restores the epochs of a run that is resumed at ``step``; a logger that starts empty gets the rows again."""
        self.rows = rows
        for item in self.loggers:
            item.rewind(step)
            for step, metrics in rows:
                if item.starts_empty:
                    item.log_metrics(metrics, step)
                item.last_step = max(item.last_step, step)


def guard(loggers: Sequence[Any]) -> list[GuardedLogger]:
    """The loggers, each guarded once: one that fails is off for as long as these objects are used."""
    return [item if isinstance(item, GuardedLogger) else GuardedLogger(item) for item in loggers]


def log_environment(
    loggers: Sequence[Any], config: Any, environment: Mapping[str, Any] | None = None, name: RunName | None = None
) -> None:
    """Names the run and sends the resolved config (a plain nested dict) and the environment to every logger."""
    params = {**config, "environment": dict(environment)} if environment else dict(config)
    for item in guard(loggers):
        if name is not None:
            item.begin(name)
        item.log_hyperparams(params)
        item.save()


def publish(loggers: Sequence[Any], run: PublishedRun) -> None:
    """Hands the results and files of a run that has ended to every logger that keeps such things."""
    for item in guard(loggers):
        item.publish(run)


def close_loggers(loggers: Sequence[Any], *, success: bool = True) -> None:
    """Ends the loggers at the end of a run; W&B needs it so that the next run of a sweep is a run of its own."""
    for item in guard(loggers):
        item.close("success" if success else "failed")
        if type(item.inner) is WandbLogger and not item.failed:
            import wandb

            wandb.finish(exit_code=0 if success else 1)


def item_map(model: Any, dataset: Any, spec: Any) -> ItemMap | None:
    """The items as the model places them or, where it knows no vectors of its own, as the encoder does; None without
    either."""
    vectors = getattr(spec, "item_vectors", None)
    if hasattr(model, "encode_items"):
        with evaluating(model):
            vectors = model.encode_items().float().cpu().numpy()
    titles = getattr(dataset, "titles", None)
    if vectors is None or titles is None or len(titles) != len(vectors):
        return None
    ids = getattr(spec, "semantic_ids", None)
    return ItemMap(vectors, titles, dataset.log.item_ids.tolist(), None if ids is None else ids.codes)


def _sentence(error: Exception) -> str:
    """The first line of what went wrong; its kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
