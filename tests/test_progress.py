from __future__ import annotations

import logging

import pytest

from genrec import progress
from genrec.progress import Bar, duration, track


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.26, "1.3 s"), (59.94, "59.9 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_lines_are_rare(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = {"time": 0.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: now["time"])
    bar = Bar("Epoch 1/2", 100)
    with caplog.at_level(logging.INFO, "genrec.trainers"):
        for _ in range(100):
            now["time"] += 0.5
            bar.advance(lambda: "loss 0.5")
    assert caplog.messages == [
        "Epoch 1/2: 40 of 100, loss 0.5, 20.0 s, about 30.0 s left",
        "Epoch 1/2: 80 of 100, loss 0.5, 40.0 s, about 10.0 s left",
    ]


def test_details_are_not_computed_when_nothing_is_shown() -> None:
    Bar("x", 3, enabled=False).advance(lambda: pytest.fail("computed"))


def test_track_gives_every_item() -> None:
    assert list(track(range(4), "x", enabled=False)) == [0, 1, 2, 3]
    assert list(track(iter("ab"), "x")) == ["a", "b"]
