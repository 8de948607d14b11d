"""Asking, from within a trial, whether it is worth going on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from genrec.contracts import GenrecError

log = logging.getLogger("genrec.run")

VARIABLE = "GENREC_TRIAL"  # of the environment of a job: storage|study|number
PRUNER = "pruner"  # the attribute of a study that says how its trials are judged
_MAX_ERRORS = 3  # of the storage, before a trial stops to ask


def trial_address(storage: str, study: str, number: int) -> str:
    """What ``current_pruner`` reads in the environment of a job."""
    return f"{storage}|{study}|{number}"


def current_pruner() -> Callable[[int, float], bool] | None:
    """Judges this run by its epochs if it is the trial of a search that prunes; else None.

    The callable takes an epoch, counted from 1, and the monitored value after it. It is True where the run should end.
    """
    address = os.environ.get(VARIABLE, "")
    storage, study, number = [*address.rsplit("|", 2), "", ""][:3]
    return TrialWatch(storage, study, int(number)) if number.isdecimal() else None


class TrialWatch:
    """Reports a run's epochs to its search, and asks the pruner. A storage that fails warns once and ends no run."""

    def __init__(self, storage: str, study: str, number: int) -> None:
        self.storage, self.study, self.number = storage, study, number
        self._trial: Any = None
        self._last = -1  # the last epoch that was reported, by an earlier attempt that was killed as well
        self._errors = 0

    def __call__(self, epoch: int, value: float) -> bool:
        if self._errors >= _MAX_ERRORS:
            return False
        try:
            return self._judge(epoch, value)
        except Exception as error:  # whatever a data base, a driver or a network may say
            self._errors += 1
            if self._errors == 1:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("Trial %d cannot be pruned, and goes on without: %s", self.number, reason)
            return False

    def _judge(self, epoch: int, value: float) -> bool:
        if self._trial is None:
            self._trial, self._last = self._connect()
        if epoch <= self._last:
            return False
        self._trial.report(value, epoch)
        self._last = epoch
        return bool(self._trial.should_prune())

    def _connect(self) -> tuple[Any, int]:
        from genrec.config import instantiate
        from genrec.sweeps.storage import load_optuna, open_storage

        optuna = load_optuna()
        storage = open_storage(self.storage)
        study = optuna.load_study(study_name=self.study, storage=storage, sampler=optuna.samplers.RandomSampler())
        if PRUNER not in study.user_attrs:
            raise GenrecError(f"study {self.study} says nothing of pruning")
        study.pruner = instantiate(study.user_attrs[PRUNER])
        frozen = study.get_trials(deepcopy=False)[self.number]
        return optuna.trial.Trial(study, frozen._trial_id), max(frozen.intermediate_values, default=-1)
