"""Going on with a sweep that was killed: which folder it is, and what its earlier command was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from genrec.artifacts import fingerprint, is_locked, read_json
from genrec.contracts import GenrecError
from genrec.records import FINISHED, LOCK_FILE, SWEEP_FILE

log = logging.getLogger("genrec.run")

# What may be said otherwise when a sweep is continued: where and how it is watched, and how long it goes on.
_MAY_DIFFER = ("hydra.", "resume", "runs_dir", "cache_dir", "logger", "callbacks", "progress", "allow_targets")
_STAYS = ("hydra.sweeper.",)
_LENGTH = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.sweeper.storage")


def sweep_key(words: Sequence[str]) -> str:
    """A fingerprint of what the words of a command line ask a sweep to do."""
    told = (word.lstrip("+") for word in words if not word.startswith("-") and _tells(word))  # +a.b: Hydra's business
    return fingerprint(sorted(told))


def _tells(word: str) -> bool:
    name = word.partition("=")[0].lstrip("+~")
    if name.startswith(_STAYS):
        return name not in _LENGTH
    return not any(name == known or name.startswith(f"{known.rstrip('.')}.") for known in _MAY_DIFFER) and (
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
    if read_json(path).get("key") != sweep_key(words):
        command = " ".join(read_json(path).get("command", []))
        raise GenrecError(
            f"{folder} was started with another command: python -m genrec.run {command}\n"
            "Repeat that with resume=..., or start a new sweep."
        )
    return folder


def _newest(runs_dir: Path, key: str) -> Path | None:
    found = []
    for path in Path(runs_dir).glob(f"multirun/**/{SWEEP_FILE}"):
        try:
            record = read_json(path)
        except GenrecError as error:  # a broken file elsewhere is no reason not to continue here
            log.warning("%s", error)
            continue
        running = is_locked(path.parent / LOCK_FILE)
        if record.get("key") == key and record.get("state") != FINISHED and not running:
            found.append((record.get("started", 0.0), path.parent))
    return max(found)[1] if found else None
