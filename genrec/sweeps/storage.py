"""Where a search keeps its trials, for the sweep and for every job of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.contracts import GenrecError
from genrec.masking import scrub

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDY_FILE = "study.db"
_PATIENCE = 60  # seconds that a job waits for another one that writes into the same SQLite file
_JOURNAL = "journal:"


def load_optuna() -> Any:
    """Optuna, quiet; ``GenrecError`` where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise GenrecError("A search needs Optuna: pip install 'genrec[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def storage_url(storage: str | None, folder: Path) -> str:
    """The address of the trials: ``study.db`` in the folder of the sweep unless another is given."""
    return storage or f"sqlite:///{(Path(folder) / STUDY_FILE).absolute()}"


def open_storage(url: str) -> BaseStorage:
    """The trials at an address of SQLAlchemy, or at ``journal:PATH``, a file that network file systems can share."""
    optuna = load_optuna()
    if url.startswith(_JOURNAL):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix(_JOURNAL))
        return optuna.storages.JournalStorage(backend)
    options = {"connect_args": {"timeout": _PATIENCE}} if url.startswith("sqlite:") else None
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # of SQLAlchemy, of a driver that is not installed, of a server
        reason = scrub(str(error).splitlines()[0])
        known = "Give sqlite:///FILE, journal:FILE, an address of SQLAlchemy, or null."
        raise GenrecError(f"hydra.sweeper.storage={scrub(url)} cannot be opened: {reason}. {known}") from error
