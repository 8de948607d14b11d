"""The one entrypoint: compose -> check -> build -> fit -> test -> write the run folder."""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.config import conf_dir, preflight
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("genrec.run")


def main() -> None:
    """Console entry: mistakes of the command line are answered before torch or any data is touched."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's notes on how to be a little faster
    gc.disable()  # until there is garbage: the collector would walk through all that is imported, again and again
    try:
        words = expanded(sys.argv[1:])
    except GenrecError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    code = preflight(words)
    if code is not None:
        sys.exit(code)
    import hydra

    from genrec.config.command_line import with_new_keys
    from genrec.sweeps import register_sweepers
    from genrec.sweeps.callback import SweepTable

    register_sweepers()
    sys.argv[1:] = with_new_keys(words)
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(_job)()
    except KeyboardInterrupt:
        log.error("Interrupted. The same command with resume=auto goes on from here.")
        sys.exit(130)
    for sweep in SweepTable.ended:
        failed = [run.folder.name for run in sweep.runs if run.state not in _GOOD]
        if failed:
            log.error(
                "failed jobs: %s. The same command with resume=%s tries them again.", ", ".join(failed), sweep.folder
            )
            sys.exit(1)


_GOOD = ("finished", "pruned")


def expanded(words: Sequence[str]) -> list[str]:
    """The words of a command line as Hydra is to read them: ``seeds=3`` is a multirun, ``resume=`` of a multirun names
    the folder of the earlier one."""
    if not any(word.lstrip("+").startswith(("seeds=", "resume=")) for word in words):
        return list(words)
    from genrec.sweeps.command import continued
    from genrec.sweeps.seeds import with_seeds

    return continued(with_seeds(words))


def _job(config: DictConfig) -> float | None:
    from genrec.run_folder import job_of_sweep
    from genrec.sweeps.workers import end_with_parent

    end_with_parent()
    import_module("genrec.trainers.base")  # what every run imports, most of what it imports at all
    gc.freeze()
    gc.enable()
    try:
        return run(config)
    except Exception as error:
        if isinstance(error, GenrecError):
            log.error("%s", error)
        if job_of_sweep():
            _record_failure(config, error)
            return math.nan  # the other jobs go on; the table says which failed, and so does the exit code
        if isinstance(error, GenrecError):
            sys.exit(1)
        raise


def _record_failure(config: DictConfig, error: Exception) -> None:
    """A failed job is told of in the log and, where it had not come that far, in a folder of its own."""
    from genrec.run_folder import note_failure

    if not isinstance(error, GenrecError):
        log.error("%s", "".join(traceback.format_exception(error)).rstrip())
    note_failure(Path(config.output_dir), config, error)


def run(config: DictConfig) -> float | None:
    """Executes the run that ``config`` describes and returns the monitored number, for sweepers to optimise."""
    from genrec.pipeline import execute
    from genrec.sweeps.pruning import current_pruner

    return execute(config, watch=current_pruner()).monitored


if __name__ == "__main__":
    main()
