"""The one entrypoint: compose -> check -> build -> fit -> test -> write the run folder."""

from __future__ import annotations

import gc
import logging
import math
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from genrec.config import conf_dir, preflight
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("genrec.run")

_failed: list[int] = []  # jobs of this sweep that a mistake of the user stopped


def main() -> None:
    """Console entry: mistakes of the command line are answered before torch or any data is touched."""
    gc.disable()  # until there is garbage: the collector would walk through all that is imported, again and again
    code = preflight(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    import hydra

    from genrec.config.command_line import with_new_keys

    sys.argv[1:] = with_new_keys(sys.argv[1:])
    hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(_job)()
    if _failed:
        log.error("failed jobs: %s", ", ".join(map(str, _failed)))
        sys.exit(1)


def _job(config: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    import_module("genrec.trainers.base")  # what every run imports, most of what it imports at all
    gc.freeze()
    gc.enable()
    try:
        return run(config)
    except GenrecError as error:
        log.error("%s", error)
        if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(1)
        _failed.append(HydraConfig.get().job.num)
        return math.nan  # the other jobs go on; the table says which failed, and so does the exit code


def run(config: DictConfig) -> float | None:
    """Executes the run that ``config`` describes and returns the monitored number, for sweepers to optimise."""
    from genrec.pipeline import execute

    return execute(config).monitored


if __name__ == "__main__":
    main()
