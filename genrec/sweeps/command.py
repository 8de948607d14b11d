"""The command line of a sweep that goes on where an earlier one was killed, or with what has failed in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from genrec.sweeps.resume import resumed_sweep
from genrec.sweeps.seeds import MULTIRUN, composed

log = logging.getLogger("genrec.run")


def continued(words: Sequence[str]) -> list[str]:
    """The words of a multirun with ``resume=``, the folder of the earlier sweep named for Hydra; others as they are.

    Each job then finds its own folder there: what has finished stands, what was killed or has failed continues.
    """
    resume = _value(words, "resume")
    named = _value(words, "hydra.sweep.dir")
    if resume is None or named is not None or not _is_multirun(words):
        return list(words)
    runs_dir = Path(_value(words, "runs_dir") or "outputs")
    folder = resumed_sweep(words, resume, runs_dir)
    if folder is None:
        log.warning(
            "resume=auto: no sweep of this command below %s has anything left to do, so a new one starts", runs_dir
        )
        return list(words)
    log.warning("resume: continuing the sweep in %s", folder)
    place = next(index for index, word in enumerate(words) if _key(word) == "resume")  # options may follow: -m
    return [*words[:place], f"hydra.sweep.dir={_quoted(str(folder))}", *words[place:]]


def _is_multirun(words: Sequence[str]) -> bool:
    """Whether a command line asks for several runs: by ``-m``, or by a config that says so, as those of sweeps do."""
    if set(words) & set(MULTIRUN):
        return True
    config = composed(words)
    return config is not None and str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"


def _value(words: Sequence[str], key: str) -> str | None:
    """What the last word for a key says, read as Hydra does: without quotes; None where it says null or nothing."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    said = [word for word in words if _key(word) == key]
    if not said:
        return None
    try:
        value = OverridesParser.create().parse_overrides([said[-1]])[0].value()
    except HydraException:  # which the check of the whole command line explains
        return said[-1].partition("=")[2]
    return None if value is None else value if isinstance(value, str) else said[-1].partition("=")[2]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _quoted(text: str) -> str:
    """A value as Hydra reads it back, whatever is in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()
