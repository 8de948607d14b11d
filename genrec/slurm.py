"""A job of Slurm that is to end before its run has: it is put into the queue again and goes on by itself."""

from __future__ import annotations

import logging
import os
import signal
import subprocess

log = logging.getLogger("genrec.run")

_SECONDS = 30


def restarted() -> bool:
    """Whether Slurm has started this job again, after it was requeued or its node had failed."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def requeue(number: signal.Signals) -> bool:
    """Puts the job of this process into the queue again after a signal, where that is wanted.

    SIGUSR1 is what a job asks to be warned by, so it always is. SIGTERM also comes of ``scancel``, so it is wanted of a
    job that still runs; one that was cancelled is completing by then.
    """
    job = _job()
    if job is None or number not in (signal.SIGUSR1, signal.SIGTERM) or not _leads():
        return False
    if number == signal.SIGTERM and _asked("squeue", "--noheader", "--format=%T", f"--jobs={job}") != "RUNNING":
        log.info("Slurm does not say that job %s is running, so it is not requeued.", job)
        return False
    if _asked("scontrol", "requeue", job) is None:
        log.warning("Slurm did not requeue job %s; submit it again, with resume=auto.", job)
        return False
    log.info("Job %s is in Slurm's queue again and goes on by itself.", job)
    return True


def _job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _leads() -> bool:
    """Whether this is the first of the processes that have been told to end."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0


def _asked(*words: str) -> str | None:
    """What a command of Slurm answers; None where it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().partition("\n")[0]
        log.debug("%s: %s", words[0], said)
        return None
    return done.stdout.strip()
