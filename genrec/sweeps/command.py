"""The command line of a sweep that goes on where an earlier one was killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from genrec.sweeps.resume import resumed_sweep

log = logging.getLogger("genrec.run")

_MULTIRUN = ("-m", "--multirun")


def continued(words: Sequence[str]) -> list[str]:
    """The words of a multirun with ``resume=``, the folder of the earlier sweep named for Hydra; others as they are.

    Each job then finds its own folder there: what has finished stands, what was killed continues.
    """
    resume = _value(words, "resume")
    named = _value(words, "hydra.sweep.dir")
    if resume in (None, "null") or named is not None or not set(words) & set(_MULTIRUN):
        return list(words)
    runs_dir = Path(_value(words, "runs_dir") or "outputs")
    folder = resumed_sweep(words, str(resume), runs_dir)
    if folder is None:
        log.warning("resume=auto: no unfinished sweep of this command below %s, so a new one starts", runs_dir)
        return list(words)
    log.warning("resume: continuing the sweep in %s", folder)
    return [*words, f"hydra.sweep.dir={folder}"]


def _value(words: Sequence[str], key: str) -> str | None:
    """What the last word for a key says."""
    values = [word.partition("=")[2] for word in words if word.partition("=")[0].lstrip("+") == key]
    return values[-1] if values else None
