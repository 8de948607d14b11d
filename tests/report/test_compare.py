from __future__ import annotations

import re
from pathlib import Path

import pytest

from genrec.contracts import GenrecError
from genrec.report.command import main
from genrec.report.compare import FEWEST_RESAMPLES, HELP, VALUED, compare_command, parse_options
from genrec.report.comparison import Options
from tests.report.run_folders import make_sweep
from tests.report.tested_runs import hits, make_user_run


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that compare two runs, from the folder that holds ``outputs``."""
    monkeypatch.chdir(tmp_path)
    make_user_run(Path("outputs") / "one", hits(60, 0.3, 0), model="sasrec")
    make_user_run(Path("outputs") / "two", hits(60, 0.6, 1), baselines={"item_knn": hits(60, 0.2, 2)})
    return ["outputs/one", "outputs/two", "resamples=200"]


def test_prints_the_verdict_and_writes_the_page(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_command(pair) == 0
    shown = capsys.readouterr().out
    assert re.search(r"recall@10 +0\.\d{4} +0\.\d{4} +\+0\.\d{4}", shown)
    assert "tiger is better than sasrec in recall@10: +0." in shown
    page = Path("outputs/reports/compare_one_two.html")
    assert f"page: {page}" in shown
    assert page.read_text().startswith("<!doctype html>")


def test_options_are_obeyed(pair: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    words = ["metrics=[ndcg@10]", "confidence=0.9", "correction=holm", "--seed", "4", f"output={page}"]
    compare_command([*pair, *words])
    shown = capsys.readouterr().out
    assert "90 % interval" in shown
    assert "recall@10" not in shown
    assert page.exists()


def test_baselines_and_folders_below_runs_dir(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    compare_command(["two:item_knn", "two", "resamples=100"])
    assert "tiger is better than item_knn" in capsys.readouterr().out
    assert Path("outputs/reports/compare_two_item_knn_two.html").exists()


def test_the_page_of_a_sweep_is_named_after_its_folder(pair: list[str]) -> None:
    sweep = make_sweep(Path("outputs/multirun/2026-11-21/10-00-00"))
    for job in range(2):
        make_user_run(sweep / str(job), hits(60, 0.5, job), seed=job, overrides=[f"seed={job}"],
                      config={"runs_dir": "outputs"})  # fmt: skip
    compare_command(["outputs/one", str(sweep), "resamples=100"])
    assert Path("outputs/reports/compare_one_2026-11-21_10-00-00.html").exists()


def test_mistakes_are_one_sentence_and_exit_code_2(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", "outputs/one", "outputs/none"])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "outputs/none is neither a run folder" in captured.err
    assert captured.out == ""


def test_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_command(["--help"]) == 0
    assert capsys.readouterr().out == HELP
    assert all(f"\n  {key}=" in HELP for key in VALUED)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("resamples=10", f"resamples=10: give a whole number of {FEWEST_RESAMPLES} or more"),
        ("confidence=95", "confidence=95: give a number from 0.5 to below 1"),
        ("confidence=high", "confidence=high"),
        ("correction=bonferroni", "the choices are none and holm"),
        ("seed=x", "seed=x: give a whole number of 0"),
        ("output=page.pdf", "must end in .html"),
        ("--metric=recall@10", "Did you mean metrics="),
    ],
)
def test_faulty_options(pair: list[str], word: str, message: str) -> None:
    with pytest.raises(GenrecError, match=re.escape(message)):
        compare_command([*pair[:2], word])


def test_options_as_they_are_read() -> None:
    found = parse_options({"metrics": "[test/recall@10, ndcg@10]", "resamples": "1_000", "confidence": "0.99"})
    assert found == Options(metrics=("recall@10", "ndcg@10"), resamples=1000, confidence=0.99)
    assert parse_options({}) == Options()
