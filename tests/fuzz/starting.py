"""A command line taken as far as ``python -m genrec.run`` takes it before data is read, many times in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import genrec.pipeline
from genrec.config.command_line import Composer, command_faults
from genrec.config.faults import report
from genrec.run import expanded
from tests.fuzz.cases import RefusedError


class StartedError(BaseException):
    """A run has come to where it reads its data; no ``Exception``, so that nothing takes it for a failure."""


_MOST_KEPT = 600  # compositions


@cache
def composer() -> Composer:
    """Hydra's composition, kept open for all cases of a process."""
    return Composer().__enter__()


def close() -> None:
    """Gives Hydra back to whoever had it before ``composer``."""
    if composer.cache_info().currsize:
        composer().__exit__()
        composer.cache_clear()


def composed(words: Sequence[str], folder: Path, *, multirun: bool = False) -> Any:
    """The config that a command line gives; raises what it is refused with. None where it asks for several runs."""
    one = composer()
    if len(one._composed) > _MOST_KEPT:
        one._composed.clear()
    words = expanded(words)
    several = multirun or "-m" in words
    words = [word for word in words if word not in ("-m", "--multirun")]
    faults = command_faults(one, words, multirun=several)
    if faults:
        raise RefusedError(report(faults))
    if several:
        return None
    _as_within_hydra(one.try_compose(words), folder)
    config = one.compose(words)
    config.output_dir = str(folder / "run")
    config.cache_dir = str(folder / "cache")
    return config


def _as_within_hydra(whole: Any, folder: Path) -> None:
    """What a run under Hydra knows of itself."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    if isinstance(whole, Exception):
        return
    whole = whole.copy()
    with open_dict(whole.hydra):
        whole.hydra.runtime.output_dir = str(folder / "run")
    HydraConfig.instance().set_config(whole)


def start(words: Sequence[str], folder: Path, *, multirun: bool = False) -> None:
    """Composes, checks and rehearses; returns where the run would have read its data."""
    config = composed(words, folder, multirun=multirun)
    if config is None:
        return
    with until_data():
        try:
            genrec.pipeline.execute(config)
        except StartedError:
            return
    raise AssertionError("the run neither started nor was refused")


@contextmanager
def until_data() -> Iterator[None]:
    def prepare(*_: object) -> None:
        raise StartedError

    with (
        mock.patch.object(genrec.pipeline, "prepare", prepare),
        mock.patch.object(genrec.pipeline, "write_page", lambda _: None),  # of a run that failed; takes long
    ):
        yield
