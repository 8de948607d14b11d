"""A process of its own may die or hang; the one that asks goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec.doctor.apart import Apart
from genrec.doctor.findings import Check
from tests.doctor.places import places_in, states

MODULE = """
import os, time
from genrec.doctor.findings import ok, warning

def check_places(places):
    yield ok("runs", str(places.runs_dir))
    yield warning("data", str(places.data_root), "look")

def check_fails(places):
    print("noise of a library")
    raise RuntimeError("broken")

def check_dies(places):
    os.write(2, b"bus error near you")
    os.kill(os.getpid(), 7)

def check_hangs(places):
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


def apart(folder: Path, *names: str) -> Apart:
    return Apart([Check("devices", f"planted:check_{name}") for name in names], places_in(folder))


def test_findings_come_back_as_they_were_made(tmp_path: Path) -> None:
    process = apart(tmp_path, "places", "fails")
    findings = process.findings()
    assert states(findings) == {"runs": "ok", "data": "warning", "fails": "problem"} and not process.died
    assert findings[0].found == str(tmp_path / "outputs") and findings[1].remedy == "look"
    assert {finding.area for finding in findings} == {"devices"} and "broken" in findings[2].found


def test_a_process_that_dies_is_a_problem(tmp_path: Path) -> None:
    process = apart(tmp_path, "places", "dies")
    (finding,) = process.findings()
    assert process.died and finding.state == "problem" and finding.area == "devices"
    assert "SIGBUS: bus error near you" in finding.found


def test_a_process_that_hangs_is_ended_and_told(tmp_path: Path) -> None:
    process = apart(tmp_path, "hangs")
    (finding,) = process.findings(timeout=0.5)
    assert process.died and finding.state == "problem" and "no answer within 0.5 seconds" in finding.found
