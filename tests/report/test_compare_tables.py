from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from genrec.report.bootstrap import Interval
from genrec.report.compare_tables import (
    bounds,
    cost_texts,
    decimals,
    difference_table,
    p_text,
    percent,
    print_comparison,
    setting_text,
    signed,
    spread,
    summary,
    with_spread,
)
from genrec.report.comparison import Options, compare
from genrec.tables import to_text
from tests.report.tested_runs import hits, make_row_run, make_user_run


def an_interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 0.1, 0.95, 100)


def printed(*given: Path, width: int = 140) -> str:
    stream = io.StringIO()
    found = compare([str(path) for path in given], Options(resamples=200))
    print_comparison(found, Console(file=stream, width=width))
    return stream.getvalue()


def test_numbers_as_text() -> None:
    assert [signed(value) for value in (0.0123, -0.5, 0.0)] == ["+0.0123", "-0.5000", "0"]
    assert [percent(share) for share in (0.123, -0.5, None, 0.0, 5.91)] == ["+12.3 %", "-50.0 %", "-", "0 %", "+591 %"]
    assert [p_text(value) for value in (0.0002, 0.0123, 0.456, 1.0)] == ["< 0.001", "0.012", "0.46", "1.00"]
    assert bounds(an_interval(-0.1, 0.2)) == "-0.1000 to +0.2000"
    assert [setting_text(value) for value in (True, None, 1e-3, [1, 2])] == ["true", "null", "0.001", "[1, 2]"]


@pytest.mark.parametrize(("half", "expected"), [(0.2, 4), (0.004, 4), (0.0004, 5), (0.00003, 6), (0.0, 4)])
def test_small_intervals_deserve_more_decimals(half: float, expected: int) -> None:
    assert decimals(an_interval(-half, half)) == expected


def test_spread_over_seeds() -> None:
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert spread([0.4]) == 0
    assert with_spread(2.0, [1.0, 2.0, 3.0]) == "2.0000 ± 1.0000"
    assert with_spread(2.0, [2.0]) == "2.0000"


def test_costs_with_units() -> None:
    assert cost_texts("seconds to train", [75.0, None]) == ("time to train", ["1 min 15 s", "-"])
    assert cost_texts("peak memory", [8.1e8]) == ("peak memory", ["810 MB"])
    assert cost_texts("parameters", [1234.0]) == ("parameters", ["1,234"])


def test_everything_is_printed(tmp_path: Path) -> None:
    a = make_user_run(tmp_path / "a", hits(80, 0.2, 0), model="sasrec", config={"optimizer": {"lr": 0.1}}, seconds=5)
    b = make_user_run(tmp_path / "b", hits(80, 0.7, 1), config={"optimizer": {"lr": 0.2}}, seconds=65)
    text = printed(a, b)
    for words in ("tiger against sasrec on synthetic: 80 test users", "recall@10 by segment", "history length 2 to 3",
                  "optimizer.lr", "what it took", "1 min 05 s", "is better than sasrec", "one seed each"):  # fmt: skip
        assert words in text


def test_long_names_become_letters(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / f"a_very_long_name_{name}", hits(40, 0.5, 0)) for name in "ab")
    text = printed(a, b)
    assert f"A  tiger {a.name}" in text
    assert " A " in text.splitlines()[4]


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, 0), model=f"[bold]{name}") for name in "ab")
    assert "[bold]b against [bold]a" in printed(a, b)


def test_a_narrow_terminal_keeps_the_interval(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, 0), model=name) for name in "ab")
    found = compare([str(a), str(b)], Options(resamples=200))
    text = to_text(difference_table(found, 1, narrow=True), width=80)
    assert "95 % interval" in text
    assert "relative" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_sentence_of_equal_runs(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, hits(40, 0.5, 0), model=name) for name in "ab")
    found = compare([str(a), str(b)], Options(resamples=200))
    assert summary(found, 1) == "b and a are equal in recall@10, for every user."


def test_an_equal_area_does_not_say_that_every_row_is_equal(tmp_path: Path) -> None:
    labels = hits(60, 0.5, 0)
    scores = np.random.default_rng(1).random(60)
    a = make_row_run(tmp_path / "a", {"click": labels}, {"click": scores}, model="a")
    b = make_row_run(tmp_path / "b", {"click": labels}, {"click": scores / 2}, model="b")
    found = compare([str(a), str(b)], Options(resamples=200))
    assert found.primary == "auc" and summary(found, 1) == "b and a are equal in auc."
