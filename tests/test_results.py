"""Numbers and pages that a run leaves."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from genrec.artifacts import read_json
from genrec.results import peak_memory, reset_peak_memory, write_numbers, write_page


def test_numbers_are_read_back(tmp_path: Path) -> None:
    write_numbers(tmp_path, {"val/x": 0.5}, {"val/x": [0.25, 0.5]}, {"fit": 1.23456}, nn.Linear(3, 2))
    assert read_json(tmp_path / "metrics.json") == {"final": {"val/x": 0.5}, "history": {"val/x": [0.25, 0.5]}}
    assert read_json(tmp_path / "timing.json") == {"fit": 1.23}
    assert read_json(tmp_path / "resources.json")["parameters"] == 8


def test_peak_holds_what_has_been_let_go(tmp_path: Path) -> None:
    reset_peak_memory()
    before = peak_memory()["peak_resident_bytes"]
    held = np.ones(25_000_000)  # 200 MB
    assert held.sum() == 25_000_000
    del held
    assert peak_memory()["peak_resident_bytes"] - before > 150e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures anew")
def test_a_job_does_not_answer_for_the_one_before() -> None:
    held = np.ones(25_000_000)
    before = peak_memory()["peak_resident_bytes"]
    assert held.sum() == 25_000_000
    del held
    reset_peak_memory()
    assert before - peak_memory()["peak_resident_bytes"] > 150e6


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert write_page(tmp_path / "nowhere") is None
    assert "could not be written" in caplog.text
