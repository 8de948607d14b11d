"""Numbers and pages that a run leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from torch import nn

from genrec.artifacts import read_json, write_json
from genrec.records import read_run
from genrec.results import Stages, peak_memory, reset_peak_memory, write_numbers, write_page

HeldMemory = Callable[[int], AbstractContextManager[None]]


def test_numbers_are_read_back(tmp_path: Path) -> None:
    stages = Stages()
    stages.seconds, stages.peaks = {"fit": 1.23456}, {"fit": {"peak_resident_bytes": 7}}
    write_numbers(tmp_path, {"val/x": 0.5}, {"val/x": [0.25, 0.5]}, stages, nn.Linear(3, 2))
    assert read_json(tmp_path / "metrics.json") == {"final": {"val/x": 0.5}, "history": {"val/x": [0.25, 0.5]}}
    timing = read_json(tmp_path / "timing.json")
    assert timing["fit"] == 1.23 and set(timing) == {"fit", "total"}
    write_json(tmp_path / "run.json", {"state": "finished"})
    record = read_run(tmp_path)
    assert record.resources["parameters"] == 8
    assert record.stages == {"fit": {"seconds": 1.23, "peak_resident_bytes": 7}}
    assert record.measured("peak/fit") == 7.0 and record.measured("resources/stages") is None


def test_peak_holds_what_has_been_let_go(held_memory: HeldMemory) -> None:
    reset_peak_memory()
    before = peak_memory()["peak_resident_bytes"]
    with held_memory(200):
        pass
    assert peak_memory()["peak_resident_bytes"] - before > 150e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures anew")
def test_a_job_does_not_answer_for_the_one_before(held_memory: HeldMemory) -> None:
    with held_memory(200):
        before = peak_memory()["peak_resident_bytes"]
    reset_peak_memory()
    assert before - peak_memory()["peak_resident_bytes"] > 150e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures anew")
def test_a_stage_answers_for_its_own_memory_and_the_run_for_all(held_memory: HeldMemory) -> None:
    """Fault: a small stage after a large one is said to need as much; or the run forgets what a stage has needed."""
    stages = Stages()
    with stages.measured("large"), held_memory(400):
        pass
    with stages.measured("small"):
        pass
    with stages.measured("large"):
        pass
    large, small = (stages.peaks[name]["peak_resident_bytes"] for name in ("large", "small"))
    assert large - small > 300e6 and stages.peak["peak_resident_bytes"] >= large
    told = stages.as_json()
    assert list(told["stages"]) == ["large", "small"] and told["stage_peaks"] == "own"
    assert told["stages"]["large"] == {"seconds": round(stages.seconds["large"], 2), "peak_resident_bytes": large}


def test_where_no_peak_can_be_measured_anew_the_figures_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_memory: HeldMemory
) -> None:
    monkeypatch.setattr("genrec.results._CLEAR", tmp_path / "no such folder" / "clear_refs")
    stages = Stages()
    with stages.measured("one"), held_memory(40):
        pass
    with stages.measured("two"):
        pass
    assert stages.as_json()["stage_peaks"] == "so_far"
    assert stages.peaks["two"]["peak_resident_bytes"] >= stages.peaks["one"]["peak_resident_bytes"]


def test_what_lies_between_stages_counts_for_the_run(held_memory: HeldMemory) -> None:
    stages = Stages()
    with held_memory(400):
        pass
    with stages.measured("after"):
        pass
    assert stages.peak["peak_resident_bytes"] - stages.peaks["after"]["peak_resident_bytes"] > 300e6


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert write_page(tmp_path / "nowhere") is None
    assert "could not be written" in caplog.text
