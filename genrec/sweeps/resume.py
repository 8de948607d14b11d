"""Going on with a sweep that was killed or has failed jobs: which folder it is, and what its earlier command was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from genrec.artifacts import fingerprint, is_locked
from genrec.contracts import GenrecError
from genrec.records import (
    FINISHED,
    LOCK_FILE,
    PRUNED,
    SWEEP_FILE,
    WATCHING_OPTIONS,
    SweepRecord,
    read_sweep,
    sweep_facts,
)

log = logging.getLogger("genrec.run")

# What may be said otherwise when a sweep is continued: where and how it is watched, and how long it goes on.
_MAY_DIFFER = ("hydra.", "resume", "runs_dir", "cache_dir", "logger", "progress", "allow_targets")
_CALLBACKS_THAT_MAY = {f"callbacks={name}" for name in WATCHING_OPTIONS}
_STAYS = ("hydra.sweeper.",)
_GRID = "basic"  # the sweeper whose jobs are named by the command line
_LENGTH = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.sweeper.storage")


def sweep_key(words: Sequence[str]) -> str:
    """A fingerprint of what the words of a command line ask a sweep to do."""
    told = (word.lstrip("+") for word in words if not word.startswith("-") and _tells(word))  # +a.b: Hydra's business
    return fingerprint(sorted(told))


def _tells(word: str) -> bool:
    name = word.partition("=")[0].lstrip("+~")
    if name.startswith(_STAYS):
        return name not in _LENGTH
    if word.lstrip("+") in _CALLBACKS_THAT_MAY:
        return False
    differing = (*_MAY_DIFFER, *(f"callbacks.{option}" for option in WATCHING_OPTIONS))
    return not any(name == known or name.startswith(f"{known.rstrip('.')}.") for known in differing) and (
        not name.startswith("hydra/launcher")
    )


def resumed_sweep(words: Sequence[str], resume: str, runs_dir: Path) -> Path | None:
    """The folder of the sweep to continue; None where ``resume=auto`` finds none."""
    if resume == "auto":
        return _newest(runs_dir, sweep_key(words))
    folder = Path(resume)
    path = folder / SWEEP_FILE
    if not path.exists():
        raise GenrecError(
            f"resume={resume} is no folder of a sweep (it has no {SWEEP_FILE}). "
            f"Give one below {runs_dir / 'multirun'}, or resume=auto."
        )
    facts = sweep_facts(path)
    if facts.get("key") != sweep_key(words):
        command = " ".join(facts.get("command") or [])
        raise GenrecError(
            f"{folder} was started with another command: python -m genrec.run {command}\n"
            "Repeat that with resume=..., or start a new sweep."
        )
    return folder


def _newest(runs_dir: Path, key: str) -> Path | None:
    found, failed, whole = [], [], 0.0
    for path in Path(runs_dir).glob(f"multirun/**/{SWEEP_FILE}"):
        try:
            record = sweep_facts(path)
        except GenrecError as error:  # a broken file elsewhere is no reason not to continue here
            log.warning("%s", error)
            continue
        if record.get("key") != key or is_locked(path.parent / LOCK_FILE):
            continue
        entry = record.get("started") or 0.0, path.parent
        if record.get("state") != FINISHED:
            found.append(entry)
        elif repeats_failed(sweep := read_sweep(path.parent)) and failed_jobs(sweep):
            failed.append(entry)
        else:
            whole = max(whole, entry[0])
    found += [entry for entry in failed if entry[0] > whole]  # what failed may have been done anew since
    return max(found)[1] if found else None


def failed_jobs(sweep: SweepRecord) -> list[str]:
    """The names of the jobs of a sweep that have no result."""
    return [run.folder.name for run in sweep.runs if run.state not in (FINISHED, PRUNED)]


def repeats_failed(sweep: SweepRecord) -> bool:
    """Whether a sweep that is continued tries again what failed; a search goes on to other trials."""
    return sweep.sweep.get("sweeper", _GRID) == _GRID
