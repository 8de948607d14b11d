import pytest

from genrec.records import read_sweep
from genrec.report.drawing import plot
from genrec.report.sweep_marks import describe, legend, shade, shortened, ticks_below
from genrec.report.trials import read_parameters, read_trials
from tests.report.fake_sweep import MONITOR, fake_run, fake_sweep


def test_shades_go_from_the_low_end_to_the_high_end():
    assert shade(0.0) == "color-mix(in oklab, var(--ramp-b) 0%, var(--ramp-a))"
    assert shade(1.0) == "color-mix(in oklab, var(--ramp-c) 100%, var(--ramp-b))"
    assert shade(None) == "var(--run-none)"


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [("lr", 100, "lr"), ("num_codes_per_level", 66, "num_…level"), ("abcdef", 0, "a…ef"), ("abcd", 0, "abcd")],
)
def test_long_words_lose_their_middle(text, room, shown):
    assert shortened(text, room) == shown


def test_ticks_that_would_touch_are_left_out():
    area = plot((0, 1), (0, 1))
    drawn = ticks_below(area, [(100, "0.001"), (110, "0.002"), (160, "0.003")])
    assert "0.001" in drawn and "0.002" not in drawn and "0.003" in drawn


def test_what_is_told_of_a_run_and_of_the_colours(tmp_path):
    fake_sweep(tmp_path)
    fake_run(tmp_path / "0", {"a.lr": "1e-3"}, 0.25)
    fake_run(tmp_path / "1", {"a.lr": "1e-2"}, 0.5)
    fake_run(tmp_path / "2", {"a.lr": "1e-1"}, state="failed")
    record = read_sweep(tmp_path)
    trials, parameters = read_trials(record), read_parameters(record.runs, record.swept)
    assert describe(trials[1], parameters, [(MONITOR, "max")]) == f"run 1\n{MONITOR} 0.5000\nlr 1e-2"
    assert describe(trials[2], parameters, [(MONITOR, "max")]) == "run 2, failed\nlr 1e-1"
    shown = legend(trials, (MONITOR, "max"))
    assert shown.index("0.2500") < shown.index("0.5000 (best)") and "failed" in shown
    assert legend(trials, (MONITOR, "min")).index("0.5000") < legend(trials, (MONITOR, "min")).index("0.2500 (best)")
    assert legend(trials[:0], (MONITOR, "max")) == ""
    assert "failed" in legend(trials[2:], (MONITOR, "max"))  # no ramp where nothing was reached
