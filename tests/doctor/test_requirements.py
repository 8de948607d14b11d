from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from genrec.doctor import requirements as module
from genrec.doctor.requirements import packages, requirements


def test_a_checkout_is_asked_for_its_own_requirements(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    found = requirements()
    assert list(found.core) == project["dependencies"] and found.python == project["requires-python"]
    assert {name: list(wanted) for name, wanted in found.extras.items()} == project["optional-dependencies"]
    assert found.checkout == repository and found.install("text") == "pip install -e '.[text]'"


def test_an_installed_package_is_asked_for_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "genrec-9.dist-info"
    info.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.4",
        "Name: genrec",
        "Version: 9",
        "Requires-Python: >=3.11",
        "Requires-Dist: torch>=2.6",
    ]
    lines += ["Requires-Dist: old; python_version < '3'", "Provides-Extra: text", "Provides-Extra: faiss"]
    lines += [
        "Requires-Dist: sentence-transformers>=3.0; extra == 'text'",
        "Requires-Dist: faiss-cpu; extra == 'faiss'",
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(module.genrec, "__file__", str(tmp_path / "site" / "genrec" / "__init__.py"))
    found = requirements()
    assert found.python == ">=3.11" and found.core == ("torch>=2.6",) and found.checkout is None
    assert found.extras == {"text": ("sentence-transformers>=3.0",), "faiss": ("faiss-cpu",)}
    assert found.install("text") == "pip install 'genrec[text]'"


def test_versions_are_held_against_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.6.0+cu124", "hydra-core": "1.4.0", "numpy": "2.0.0rc1"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    found = packages(["torch>=2.6", "hydra-core>=1.3.2,<1.4", "numpy>=1.26", "rich>=13"])
    assert [(package.version, package.fits) for package in found] == [
        ("2.6.0+cu124", True),
        ("1.4.0", False),
        ("2.0.0rc1", True),
        (None, False),
    ]
