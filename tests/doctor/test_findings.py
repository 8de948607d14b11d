"""Checks answer alone: whatever happens in one of them, the others are heard."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from genrec.doctor.findings import OK, PROBLEM, WARNING, Check, Finding, Places, examine, ok, problem, warning, worst

HERE = f"{__name__}:"


def check_well() -> Iterator[Finding]:
    yield ok("well", "all is well")


def check_breaks_off() -> Iterator[Finding]:
    yield warning("before", "said before", "do it")
    raise RuntimeError("two\nlines")


def check_that_exits() -> NoReturn:
    raise SystemExit(3)


def check_interrupted() -> NoReturn:
    raise KeyboardInterrupt


class PanicError(BaseException):
    """As extensions written in Rust raise it."""


def check_panics() -> NoReturn:
    raise PanicError("index out of bounds")


def check_noisy() -> Iterator[Finding]:
    logging.getLogger("genrec").error("told in the log")
    warnings.warn("told as a warning", stacklevel=1)
    yield ok("noisy", "")


def test_a_check_that_fails_is_a_finding_and_the_others_are_heard() -> None:
    names = ("check_well", "check_breaks_off", "check_that_exits", "check_panics", "check_well")
    findings = examine([Check("area", HERE + name) for name in names])
    assert [finding.state for finding in findings] == [OK, WARNING, PROBLEM, PROBLEM, PROBLEM, OK]
    assert findings[2].name == "breaks off" and "RuntimeError: two lines" in findings[2].found
    assert "SystemExit: 3" in findings[3].found and "PanicError: index out of bounds" in findings[4].found
    assert {finding.area for finding in findings} == {"area"}


def test_a_module_that_cannot_be_imported_is_a_finding() -> None:
    (finding,) = examine([Check("area", "genrec.doctor.nowhere:check_it")])
    assert finding.state == PROBLEM and finding.name == "it" and "genrec.doctor.nowhere" in finding.found


def test_who_presses_control_c_is_obeyed() -> None:
    with pytest.raises(KeyboardInterrupt):
        examine([Check("area", HERE + "check_interrupted")])


def test_logs_and_warnings_of_what_is_checked_stay_silent(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        examine([Check("area", HERE + "check_noisy")])
    assert heard == [] and caplog.records == []
    logging.getLogger("genrec").error("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]


def test_the_worst_state_counts() -> None:
    good, bad, worse = ok("a", ""), warning("b", "", ""), problem("c", "", "")
    assert worst([]) == OK and worst([good, bad]) == WARNING and worst([bad, worse, good]) == PROBLEM


def test_places_that_were_given_are_repeated_in_commands() -> None:
    places = Places(Path("my runs"), Path("data"), Path("cache"), ("runs_dir",))
    assert places.words("runs_dir", "cache_dir") == " 'runs_dir=my runs'"
