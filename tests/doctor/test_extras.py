from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from genrec.doctor.extras import PURPOSES, check_extras
from genrec.doctor.requirements import requirements
from tests.doctor.places import places_in, the

PLACES = places_in(Path())


def test_every_extra_is_explained() -> None:
    assert set(PURPOSES) == set(requirements().extras)


def test_extras_are_installed_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"faiss-cpu": "1.9.0", "optuna": "3.0.0", "cmaes": "0.10.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    findings = list(check_extras(PLACES))
    faiss, text, sweep = (the(findings, name) for name in ("faiss", "text", "sweep"))
    assert faiss.state == "ok" and faiss.found.startswith("installed") and not faiss.remedy
    assert text.state == "ok" and text.found == "not installed: sentence-transformers"
    assert text.remedy.endswith("pip install -e '.[text]'")
    assert sweep.state == "warning" and "optuna 3.0.0 is not optuna>=4.0" in sweep.found
