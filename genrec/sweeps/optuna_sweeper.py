"""A search with Optuna as a sweeper of Hydra: ``hydra/sweeper=optuna``. Optuna itself is loaded when it begins."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hydra.plugins.sweeper import Sweeper

from genrec.annotations import Count, Natural, check_fields
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

log = logging.getLogger("genrec.run")


@dataclass(kw_only=True, eq=False)
class OptunaSweeper(Sweeper):
    """The options of a search; ``conf/hydra/sweeper/optuna.yaml`` says what each does."""

    params: dict[str, Any] | None = None
    conditions: dict[str, Any] | None = None
    n_trials: Count = 30
    n_jobs: Count | None = None
    sampler: Literal["tpe", "cmaes", "random", "grid"] | dict[str, Any] = "tpe"
    seed: Natural = 42
    startup_trials: Count = 10
    objectives: list[str] | None = None
    directions: list[Literal["min", "max"]] | None = None
    pruner: Literal["none", "median", "hyperband", "asha"] | dict[str, Any] = "none"
    pruner_startup_trials: Natural = 5
    pruner_warmup_epochs: Count = 2
    pruner_reduction: Count = 3
    storage: str | None = None
    study_name: str = "genrec"
    max_failures: Count | None = 10

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before ``sweep``."""
        from hydra.core.plugins import Plugins

        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Searches and returns the best value; None of several objectives. Mistakes end the process with 1."""
        from genrec.sweeps.search import Search

        assert self.config is not None and self.hydra_context is not None and self.launcher is not None
        try:
            self._make_plain()
            return Search(self, arguments, self.launcher, self.hydra_context.config_loader, self.config).run()
        except GenrecError as error:
            log.error("%s", error)
            sys.exit(1)

    def _make_plain(self) -> None:
        """Options that are mappings or lists as plain ones, all of them checked."""
        from omegaconf import OmegaConf

        for name, value in vars(self).items():
            if OmegaConf.is_config(value) and name != "config":
                setattr(self, name, OmegaConf.to_container(value, resolve=True))
        check_fields(self, "hydra.sweeper")
