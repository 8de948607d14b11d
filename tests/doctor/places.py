"""Where the doctor's tests look, and its answers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from genrec.doctor.findings import Finding, Places


def places_in(folder: Path, *given: str) -> Places:
    """The usual folders below ``folder``."""
    return Places(folder / "outputs", folder / "data", folder / "outputs" / "cache", given)


def states(findings: Iterable[Finding]) -> dict[str, str]:
    """The state of each finding by its name."""
    return {finding.name: finding.state for finding in findings}


def the(findings: Iterable[Finding], name: str) -> Finding:
    """The one finding of a name."""
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def raises(error: BaseException) -> Callable[..., Any]:
    """A function that fails."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
