"""What genrec asks of Python and of other packages, and what is installed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import genrec

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@dataclass(frozen=True)
class Requirements:
    """``python`` is a range such as ``>=3.11``; ``core`` and each of ``extras`` are requirements such as
    ``torch>=2.6``; ``checkout`` is the folder of the sources, None where genrec is installed from a wheel."""

    python: str
    core: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    checkout: Path | None = None

    def install(self, extra: str) -> str:
        """The command that installs an extra."""
        return f"pip install -e '.[{extra}]'" if self.checkout else f"pip install 'genrec[{extra}]'"


@dataclass(frozen=True)
class Package:
    """A required package: the version that is installed, None where there is none, and whether it is one that will
    do."""

    requirement: str
    name: str
    version: str | None
    fits: bool


def requirements() -> Requirements:
    """Those of the checkout that genrec is imported from, else those of the installed package."""
    checkout = Path(genrec.__file__).resolve().parents[1]
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except OSError:
        return _installed_requirements()
    extras = {name: tuple(wanted) for name, wanted in project["optional-dependencies"].items()}
    return Requirements(project["requires-python"], tuple(project["dependencies"]), extras, checkout)


def _installed_requirements() -> Requirements:
    from packaging.requirements import Requirement

    found = metadata.metadata("genrec")
    core: list[str] = []
    extras: dict[str, list[str]] = {name: [] for name in found.get_all("Provides-Extra") or ()}
    for text in found.get_all("Requires-Dist") or ():
        requirement = Requirement(text)
        homes = [name for name in extras if _applies(requirement, name)]
        for home in [core] if _applies(requirement, "") else [extras[name] for name in homes]:
            home.append(text.partition(";")[0].strip())
    return Requirements(
        found["Requires-Python"] or ">=3", tuple(core), {name: tuple(wanted) for name, wanted in extras.items()}
    )


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def packages(wanted: Iterable[str]) -> list[Package]:
    """Each requirement beside what is installed."""
    from packaging.requirements import Requirement

    found = []
    for text in wanted:
        requirement = Requirement(text)
        name = requirement.name
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        fits = version is not None and requirement.specifier.contains(version, prereleases=True)
        found.append(Package(text, name, version, fits))
    return found
