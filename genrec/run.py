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
from genrec.console import command, sentence_of
from genrec.contracts import GenrecError
from genrec.disk import StorageError
from genrec.interruption import Interrupted, Interruption
from genrec.slurm import requeue, restarted

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("genrec.run")


def main() -> None:
    """Console entry: mistakes of the command line are answered before torch or any data is touched."""
    command("genrec", _main)


def _main() -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's notes on how to be a little faster
    gc.disable()  # until there is garbage: the collector would walk through all that is imported, again and again
    try:
        words = expanded(_requeued(sys.argv[1:]))
    except GenrecError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    code = preflight(words)
    if code is not None:
        return code
    import hydra

    from genrec.config.command_line import with_new_keys
    from genrec.sweeps import register_sweepers
    from genrec.sweeps.callback import SweepTable, told
    from genrec.sweeps.resume import failed_jobs, repeats_failed

    register_sweepers()
    sys.argv[1:] = with_new_keys(words)
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(_job)()
    except (KeyboardInterrupt, Interrupted) as error:
        return _interrupted(error)
    except Exception as error:
        if not isinstance(error, GenrecError) and told(error):
            return 1
        raise
    for sweep in SweepTable.ended:
        failed = failed_jobs(sweep)
        if failed:
            how = _AGAIN if repeats_failed(sweep) else _OTHERS
            log.error("failed jobs: %s. %s resume=%s.", ", ".join(failed), how, sweep.folder)
            return 1
    return 0


def _interrupted(error: BaseException) -> int:
    """Tells how to go on, or has Slurm do so; the exit code."""
    if isinstance(error, Interrupted) and requeue(error.signal):
        return error.exit_code
    log.error("%s", f"{str(error) or 'Interrupted.'} The same command with resume=auto goes on from here.")
    return error.exit_code if isinstance(error, Interrupted) else 130


def _requeued(words: Sequence[str]) -> list[str]:
    """The words of a command line; a job that Slurm has started again goes on with the run, or the sweep, it had
    begun."""
    given = any(word.lstrip("+").startswith("resume=") for word in words)
    return list(words) if given or not restarted() else [*words, "resume=auto"]


_AGAIN = "The same command tries them again with resume=auto, or"
_OTHERS = "A search does not repeat them; the same command tries others with a larger hydra.sweeper.n_trials and"
_FLAGS = ("-m", "--multirun")


def _flags_first(words: Sequence[str]) -> list[str]:
    """``-m`` may stand anywhere; Hydra's own reading of a command line refuses what comes after it."""
    return [*(word for word in words if word in _FLAGS), *(word for word in words if word not in _FLAGS)]


def expanded(words: Sequence[str]) -> list[str]:
    """The words of a command line as Hydra is to read them: ``seeds=3`` is a multirun, ``resume=`` of a multirun names
    the folder of the earlier one."""
    words = _flags_first(words)
    if not any(word.lstrip("+").startswith(("seeds=", "resume=")) for word in words):
        return words
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
        with Interruption().heard() as interruption:
            return run(config, interruption)
    except Exception as fault:
        error = sentence_of(fault) or fault
        if isinstance(error, GenrecError):
            log.error("%s%s", error, _RESUME if isinstance(error, StorageError) else "")
        if job_of_sweep():
            _record_failure(config, error)
            return math.nan  # the other jobs go on; the table says which failed, and so does the exit code
        if isinstance(error, GenrecError):
            sys.exit(1)
        raise


_RESUME = " Then the same command with resume=auto goes on from the last checkpoint."


def _record_failure(config: DictConfig, error: Exception) -> None:
    """A failed job is told of in the log and, where it had not come that far, in a folder of its own."""
    from genrec.run_folder import note_failure

    if not isinstance(error, GenrecError):
        log.error("%s", "".join(traceback.format_exception(error)).rstrip())
    note_failure(Path(config.output_dir), config, error)


def run(config: DictConfig, interruption: Interruption | None = None) -> float | None:
    """Executes the run that ``config`` describes and returns the monitored number, for sweepers to optimise."""
    from genrec.pipeline import execute
    from genrec.sweeps.pruning import current_pruner

    return execute(config, watch=current_pruner(), interruption=interruption).monitored


if __name__ == "__main__":
    main()
