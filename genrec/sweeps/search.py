"""One search: opens its study, launches trials batch by batch, and tells the study what their folders say.

Trial ``n`` is job ``n`` in folder ``n``. What is proposed depends on the trials before it and on ``seed`` alone, so
that a search that was killed and continued finds what it would have found.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.contracts import GenrecError
from genrec.masking import scrub

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from genrec.config.search_space import SearchSpace
    from genrec.records import RunRecord
    from genrec.sweeps.optuna_sweeper import OptunaSweeper

log = logging.getLogger("genrec.run")

_OVERRIDES, _ATTEMPTS, _SPACE, _ERROR = "overrides", "attempts", "space", "error"  # attributes of trials and studies
_POLL_SECONDS = 1.0
_MAX_ATTEMPTS = 10  # of a trial that takes the sweep's process with it


class Search:
    """What ``options`` ask for, with the words of the command line; ``run`` does it."""

    def __init__(
        self,
        options: OptunaSweeper,
        arguments: Sequence[str],
        launcher: Launcher,
        loader: ConfigLoader,
        config: DictConfig,
    ) -> None:
        from genrec.config.search_space import read_search

        self.options, self.launcher, self.loader, self.config = options, launcher, loader, config
        self.space, self.fixed = read_search(options.params, arguments, options.conditions, loader, config)
        self.goals = search_goals(config)
        self.n_trials = options.n_trials
        if options.sampler == "grid":
            self.n_trials = min(self.n_trials, len(self.space.grid()))
        self.folder = Path(config.hydra.sweep.dir).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._failures = 0  # in a row
        self.study = self._open_study()

    def run(self) -> float | None:
        """Launches what is missing of ``n_trials``; the best value, None of several objectives or where all failed."""
        self._say_what_is_there()
        limit = self.options.max_failures
        while batch := self._next_batch():
            self._run(batch)
            log.info("%s", progress_line(self.study, self.n_trials, self.goals))
            if limit is not None and self._failures >= limit:
                log.error("%d trials failed in a row: the search ends (hydra.sweeper.max_failures)", self._failures)
                break
        return self._conclude()

    # -- what is searched, and where

    def _open_study(self) -> Study:
        from hydra.utils import instantiate

        from genrec.sweeps.pruning import PRUNER
        from genrec.sweeps.samplers import describe_space
        from genrec.sweeps.storage import load_optuna, open_storage, storage_url

        optuna = load_optuna()
        node = self._pruner_node()
        self.address = storage_url(self.options.storage, self.folder)
        study = optuna.create_study(
            storage=open_storage(self.address),
            study_name=self.options.study_name,
            directions=["minimize" if direction == "min" else "maximize" for _, direction in self.goals],
            pruner=instantiate(node) if node else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        asked = {_SPACE: describe_space(self.space), "objectives": self.goals, PRUNER: node}
        for name, value in asked.items():
            known = study.user_attrs.get(name)
            if study.trials and name != PRUNER and known != value:
                raise GenrecError(
                    f"Study {self.options.study_name} in {scrub(self.address)} is about another search: its {name} was "
                    f"{known}, and now it is {value}. Name another hydra.sweeper.study_name, or another storage."
                )
            study.set_user_attr(name, value)
        return study

    def _pruner_node(self) -> dict[str, Any] | None:
        from genrec.sweeps.samplers import pruner_node

        node = pruner_node(
            self.options.pruner,
            startup_trials=self.options.pruner_startup_trials,
            warmup_epochs=self.options.pruner_warmup_epochs,
            reduction=self.options.pruner_reduction,
            max_epochs=most_epochs(self.config, self.space),
        )
        if node and len(self.goals) > 1:
            raise GenrecError("A search for several objectives cannot prune: give hydra.sweeper.pruner=none.")
        if node and self.goals[0][1] != watched_direction(self.config):
            raise GenrecError(
                f"Pruning looks at the monitored metric, and {self.goals[0][0]} goes the other way. "
                "Set monitor= to it, or hydra.sweeper.pruner=none."
            )
        return node

    def _say_what_is_there(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        if trials:
            done = sum(trial.state.is_finished() for trial in trials)
            log.info("search: %d trials are there already, %d of them to be finished", len(trials), len(trials) - done)

    # -- proposals

    def _next_batch(self) -> list[Trial]:
        """Trials to launch: first those that were killed, then new ones."""
        from optuna.trial import TrialState

        killed = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
        while killed:
            batch = [trial for trial in map(self._revive, killed[: self._at_once()]) if trial is not None]
            if batch:
                return batch
            killed = killed[self._at_once() :]
        known = len(self.study.get_trials(deepcopy=False))
        return [self._ask() for _ in range(min(self._at_once(), self.n_trials - known))]

    def _at_once(self) -> int:
        """Trials that are launched together: those that the launcher runs side by side."""
        if self.options.n_jobs is not None:
            return self.options.n_jobs
        launcher = self.config.hydra.launcher
        count = launcher.get("n_jobs") or launcher.get("array_parallelism") or 1
        return int(count) if count > 0 else os.cpu_count() or 1

    def _ask(self) -> Trial:
        self._reseed(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        self._propose(trial)
        return trial

    def _revive(self, frozen: FrozenTrial) -> Trial | None:
        """A trial that was killed; None, and it has failed, where that happened again and again."""
        from optuna.trial import Trial

        wait_until_free(self.folder / str(frozen.number))
        self._reseed(frozen.number)
        trial = Trial(self.study, frozen._trial_id)
        attempts = frozen.user_attrs.get(_ATTEMPTS, 0)
        if attempts >= _MAX_ATTEMPTS:
            self._tell_failed(trial, f"it was killed {attempts} times")
            return None
        if _OVERRIDES not in frozen.user_attrs:  # killed while it was asked for
            self._propose(trial)
        return trial

    def _reseed(self, number: int) -> None:
        from genrec.sweeps.samplers import build_sampler

        self.study.sampler = build_sampler(
            self.options.sampler,
            self.space,
            seed=self.options.seed,
            number=number,
            startup_trials=self.options.startup_trials,
            objectives=len(self.goals),
        )

    def _propose(self, trial: Trial) -> None:
        from genrec.sweeps.samplers import suggest

        trial.set_user_attr(_OVERRIDES, self.space.propose(lambda parameter: suggest(trial, parameter)))

    # -- jobs

    def _run(self, batch: Sequence[Trial]) -> None:
        """Launches trials and tells the study how they ended."""
        ready = [trial for trial in batch if self._composes(trial)]
        for group in consecutive(ready):
            for trial in group:
                trial.set_user_attr(_ATTEMPTS, trial.user_attrs.get(_ATTEMPTS, 0) + 1)
            returned = self._launch(group)
            for trial, job in zip(group, returned, strict=True):
                self._tell(trial, job)

    def _overrides(self, trial: Trial) -> list[str]:
        from hydra.core.override_parser.types import Quote, QuotedString

        from genrec.sweeps.pruning import VARIABLE, trial_address

        overrides = [*self.fixed, *trial.user_attrs[_OVERRIDES]]
        if self.options.pruner != "none":
            address = trial_address(self.address, self.options.study_name, trial.number)
            overrides.append(f"++hydra.job.env_set.{VARIABLE}={QuotedString(address, Quote.single).with_quotes()}")
        return overrides

    def _composes(self, trial: Trial) -> bool:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        try:
            self.loader.load_sweep_config(self.config, self._overrides(trial))
            return True
        except (HydraException, OmegaConfBaseException) as error:
            self._tell_failed(trial, str(error).splitlines()[0])
            return False

    def _launch(self, group: Sequence[Trial]) -> Sequence[JobReturn | None]:
        try:
            jobs = [self._overrides(trial) for trial in group]
            return self.launcher.launch(jobs, initial_job_idx=group[0].number)
        except Exception as error:  # a worker that died, a cluster that refused: what is in the folders is still true
            log.error("The launcher failed (%s: %s); the search goes on.", type(error).__name__, error)
            return [None] * len(group)

    def _tell(self, trial: Trial, job: JobReturn | None) -> None:
        from optuna.trial import TrialState

        folder = self._job_folder(trial, job)
        try:
            record = read_job(folder)
            values = [measured(record, name) for name, _ in self.goals] if record.state == "finished" else None
        except GenrecError as error:
            self._tell_failed(trial, str(error))
            return
        if record.state not in ("finished", "pruned"):
            self._tell_failed(trial, record.error or f"it was {record.state}")
            return
        self._failures = 0
        trial.set_user_attr("folder", str(folder))
        state = TrialState.COMPLETE if values else TrialState.PRUNED
        self.study.tell(trial.number, values, state=state, skip_if_finished=True)

    def _job_folder(self, trial: Trial, job: JobReturn | None) -> Path:
        known = getattr(job, "hydra_cfg", None)
        return Path(known.hydra.runtime.output_dir) if known is not None else self.folder / str(trial.number)

    def _tell_failed(self, trial: Trial, reason: str) -> None:
        from optuna.trial import TrialState

        self._failures += 1
        log.error("trial %d failed: %s", trial.number, reason)
        trial.set_user_attr(_ERROR, reason)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    # -- the end

    def _conclude(self) -> float | None:
        best = best_trials(self.study)
        if not best:
            log.error("No trial finished, so there is no best one. The first fault is in %s", self.folder / "0")
            return None
        if len(self.goals) > 1:
            log.info("search: %d trials are better than all others in some respect:", len(best))
        for trial in best:
            log.info("best: %s", trial_line(trial, self.goals))
        return best[0].value if len(self.goals) == 1 else None


def search_goals(config: DictConfig) -> list[list[str]]:
    """``[metric, "min" | "max"]`` of what is searched for: the objectives of the sweeper, or the monitored metric."""
    from genrec.sweeps.callback import objectives

    return objectives(config)


def watched_direction(config: DictConfig) -> str:
    """What is better of the metric that a run monitors."""
    from genrec.directions import metric_mode

    mode = config.trainer.get("mode", "auto")
    return metric_mode(str(config.get("monitor") or config.trainer.get("monitor"))) if mode == "auto" else mode


def most_epochs(config: DictConfig, space: SearchSpace) -> int | None:
    """How many epochs a trial may take, by the trainer or, where that is searched, by the space; None: no bound."""
    from genrec.config.search_space import Choice

    for parameter in space.parameters:
        if parameter.key == "trainer.max_epochs":
            domain = parameter.domain
            return max(int(float(value)) for value in domain.values) if isinstance(domain, Choice) else int(domain.high)
    bound = config.trainer.get("max_epochs")
    return None if bound is None else int(bound)


def consecutive(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Trials whose numbers follow each other, which a launcher can number as well."""
    group: list[Trial] = []
    for trial in trials:
        if group and trial.number != group[-1].number + 1:
            yield group
            group = []
        group.append(trial)
    if group:
        yield group


def wait_until_free(folder: Path) -> None:
    """Waits for the job of an earlier sweep that still runs, on a cluster for example."""
    from genrec.artifacts import is_locked
    from genrec.records import LOCK_FILE

    if is_locked(folder / LOCK_FILE):
        log.warning("%s is still being written by a job of the earlier sweep: waiting for it", folder)
    while is_locked(folder / LOCK_FILE):
        time.sleep(_POLL_SECONDS)


def read_job(folder: Path) -> RunRecord:
    from genrec.records import is_run, read_run

    if not is_run(folder):
        raise GenrecError(f"it left no run in {folder}")
    return read_run(folder)


def measured(record: RunRecord, name: str) -> float:
    """A number of a finished run: a final metric, ``seconds/STAGE`` or ``resources/NAME``; ``GenrecError`` without."""
    value = record.measured(name)
    if value is None:
        known = ", ".join(record.final) or "nothing"
        raise GenrecError(f"it measured no {name}, which is searched for, but {known}")
    return value


def best_trials(study: Study) -> list[FrozenTrial]:
    """The best finished trial, or those of several objectives that no other beats in all; empty where none finished."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not finished:
        return []
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def progress_line(study: Study, n_trials: int, goals: Sequence[Sequence[str]]) -> str:
    """How far a search is, in a line."""
    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in names.items() if state in states)
    best = best_trials(study)
    so_far = f"; best {trial_line(best[0], goals)}" if len(best) == 1 and len(goals) == 1 else ""
    return f"search: {len(states)} of {n_trials} trials ({counts}){so_far}"


def trial_line(trial: FrozenTrial, goals: Sequence[Sequence[str]]) -> str:
    """What a trial reached, and how."""
    reached = ", ".join(f"{name} {value:.4g}" for (name, _), value in zip(goals, trial.values or (), strict=True))
    return f"{reached} (trial {trial.number}: {' '.join(trial.user_attrs.get(_OVERRIDES, ()))})"
