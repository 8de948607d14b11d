"""What a check has found, and checks that cannot bring each other down.

A check is named by its place and imported when its turn comes: where a package is missing that one of them needs, the
others still answer.
"""

from __future__ import annotations

import logging
import pkgutil
import shlex
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

OK, WARNING, PROBLEM = "ok", "warning", "problem"
STATES = (OK, WARNING, PROBLEM)


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, its state (one of STATES), what was found, and what to do."""

    name: str
    state: str
    found: str
    remedy: str = ""
    area: str = ""


@dataclass(frozen=True)
class Places:
    """Where to look: the folders of runs, data sets and cache. ``given`` names the options that were given."""

    runs_dir: Path
    data_root: Path
    cache_dir: Path
    given: tuple[str, ...] = ()

    def words(self, *names: str) -> str:
        """The places that were given, as words of a command line that looks at the same ones; begins with a space."""
        words = [f"{name}={getattr(self, name)}" for name in names if name in self.given]
        return "".join(f" {shlex.quote(word)}" for word in words)


@dataclass(frozen=True)
class Check:
    """A function ``module:name`` that yields findings of an area."""

    area: str
    function: str

    @property
    def name(self) -> str:
        return self.function.rpartition(":")[2].removeprefix("check_").replace("_", " ")


def ok(name: str, found: str, remedy: str = "") -> Finding:
    return Finding(name, OK, found, remedy)


def warning(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, WARNING, found, remedy)


def problem(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, PROBLEM, found, remedy)


def examine(checks: Iterable[Check], *arguments: Any) -> list[Finding]:
    """The findings of all checks, in order; one that fails is a finding itself."""
    with _quiet():
        return [finding for check in checks for finding in _findings(check, arguments)]


def worst(findings: Sequence[Finding]) -> str:
    """The worst state among the findings; ok where there are none."""
    return max((finding.state for finding in findings), key=STATES.index, default=OK)


def one_line(error: BaseException | str) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _findings(check: Check, arguments: Sequence[Any]) -> Iterator[Finding]:
    try:
        for finding in pkgutil.resolve_name(check.function)(*arguments):
            yield replace(finding, area=check.area)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # libraries exit and panic as well
        found = f"could not be checked: {type(error).__name__}: {one_line(error)}"
        remedy = "Mend what else is found first, above all of the packages, and look again."
        yield Finding(check.name, PROBLEM, found, remedy, check.area)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the checked code would log or warn of is told by findings."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
