"""The table of a sweep, read from the folders of its jobs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from genrec.artifacts import write_json, write_text
from genrec.report import SweepRow, SweepTable, _rank, sweep_columns, sweep_rows, swept_names, write_sweep


def job(
    root: Path,
    name: str,
    overrides: list[str],
    final: dict[str, float] | None,
    *,
    state: str = "finished",
    started: float = 0.0,
) -> Path:
    """The folder that a job leaves."""
    write_json(root / name / "run.json", {"state": state, "config_key": "k", "started": started})
    write_text(root / name / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    if final is not None:
        write_json(root / name / "metrics.json", {"final": final, "history": {}})
    return root / name


def row(
    name: str = "0",
    final: dict[str, float] | None = None,
    *,
    state: str = "finished",
    overrides: dict[str, str] | None = None,
) -> SweepRow:
    return SweepRow(Path(name), overrides or {}, state, final or {})


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Ten and two were done, one failed after an earlier attempt had written metrics; started in another order."""
    common = ["model=tiger", "trainer.max_epochs=1"]
    job(tmp_path, "10", [*common, "optimizer.lr=1e-3"], {"val/recall@10": 0.2, "test/recall@10": 0.1}, started=1.0)
    job(tmp_path, "2", [*common, "optimizer.lr=3e-4"], {"val/recall@10": 0.3, "test/recall@10": 0.05}, started=2.0)
    job(tmp_path, "1", [*common, "optimizer.lr=9"], {"val/recall@10": 0.9}, state="failed", started=3.0)
    return tmp_path


def test_jobs_come_in_the_order_they_were_started(sweep: Path) -> None:
    rows = sweep_rows(sweep)
    assert [(found.folder.name, found.state) for found in rows] == [
        ("10", "finished"),
        ("2", "finished"),
        ("1", "failed"),
    ]
    assert rows[0].final == {"val/recall@10": 0.2, "test/recall@10": 0.1}
    assert rows[0].overrides == {"model": "tiger", "trainer.max_epochs": "1", "optimizer.lr": "1e-3"}


def test_failed_jobs_have_no_metrics_even_where_an_earlier_attempt_left_some(sweep: Path) -> None:
    assert sweep_rows(sweep)[2].final == {}


def test_a_job_without_metrics_and_a_stray_folder_do_no_harm(tmp_path: Path) -> None:
    job(tmp_path, "0", ["seed=1"], None)
    (tmp_path / "stray").mkdir()
    assert [(found.folder.name, found.final) for found in sweep_rows(tmp_path)] == [("0", {})]


def test_overrides_are_named_without_their_signs_and_split_once(tmp_path: Path) -> None:
    job(tmp_path, "0", ["+model.extra=a=b", "~baselines.item_knn", "++seed=3", "k_values=[1,5]"], {})
    assert sweep_rows(tmp_path)[0].overrides == {
        "model.extra": "a=b",
        "baselines.item_knn": "",
        "seed": "3",
        "k_values": "[1,5]",
    }


def test_swept_are_the_overrides_that_differ_in_the_order_given() -> None:
    rows = [
        row(overrides={"model": "tiger", "trainer.patience": "2", "lr": "1"}),
        row(overrides={"model": "tiger", "trainer.patience": "4", "lr": "1", "only": "here"}),
    ]
    assert swept_names(rows) == ["trainer.patience", "only"]
    assert swept_names(rows[:1]) == []
    assert swept_names([]) == []


def test_sweep_csv_has_one_row_per_job_and_every_metric(sweep: Path) -> None:
    path = write_sweep(sweep_rows(sweep), sweep)
    assert path == sweep / "sweep.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["job", "state", "optimizer.lr", "test/recall@10", "val/recall@10"]
    assert [list(found.values()) for found in rows] == [
        ["10", "finished", "1e-3", "0.1", "0.2"],
        ["2", "finished", "3e-4", "0.05", "0.3"],
        ["1", "failed", "9", "", ""],
    ]


def test_values_with_commas_stay_in_their_cell(tmp_path: Path) -> None:
    rows = [row("0", overrides={"k_values": "[1,5]"}), row("1", overrides={"k_values": "[1]"})]
    with open(write_sweep(rows, tmp_path), newline="", encoding="utf-8") as file:
        assert [found["k_values"] for found in csv.DictReader(file)] == ["[1,5]", "[1]"]


def test_columns_are_what_was_monitored_then_the_test_metrics() -> None:
    final = {"train/loss": 1.0, "test/a": 0.1, "val/a": 0.2, "test/b": 0.3, "baseline/x/test/a": 0.4}
    assert sweep_columns(final, "val/a") == ["val/a", "test/a", "test/b"]
    assert sweep_columns(final, "val/missing") == ["test/a", "test/b"]
    assert sweep_columns(final, None) == ["test/a", "test/b"]
    assert len(sweep_columns({f"test/{name}": 0.0 for name in "abcdefghij"}, None)) == 6


@pytest.mark.parametrize(
    ("monitor", "best_first"),
    [
        ("val/recall", ["high", "low", "failed"]),
        ("val/loss", ["low", "high", "failed"]),
        ("val/mse", ["low", "high", "failed"]),
    ],
)
def test_rank_puts_the_best_first_and_failed_jobs_last(monitor: str, best_first: list[str]) -> None:
    rows = [row("failed", state="failed"), row("low", {monitor: 0.1}), row("high", {monitor: 0.9})]
    assert [found.folder.name for found in sorted(rows, key=lambda found: _rank(found, monitor))] == best_first


def test_zero_is_a_value_and_no_failure() -> None:
    rows = [row("failed", state="failed"), row("zero", {"val/recall": 0.0})]
    assert min(rows, key=lambda found: _rank(found, "val/recall")) is rows[1]
    assert _rank(rows[1], None) == float("inf")


def end(folder: Path, trainer: dict[str, Any], monitor: str | None = None) -> None:
    config = {"hydra": {"sweep": {"dir": str(folder)}}, "monitor": monitor, "trainer": trainer}
    SweepTable().on_multirun_end(OmegaConf.create(config))


def printed_jobs(text: str) -> list[str]:
    """The first column of the printed table."""
    return [
        words[0]
        for line in text.splitlines()
        if (words := line.split()) and words[0].isdecimal() and words[1] != "runs,"
    ]


def test_table_at_the_end_prints_the_best_first_with_the_state_of_the_failed(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end(sweep, {"monitor": "val/recall@10"})
    text = capsys.readouterr().out
    assert printed_jobs(text) == ["2", "10", "1"]
    assert " lr " in text and "model" not in text
    assert "0.3000" in text and "failed" in text and "sweep.csv" in text
    assert (sweep / "sweep.csv").exists()


def test_root_monitor_goes_before_the_trainer_s(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(sweep, {"monitor": "val/recall@10"}, monitor="test/recall@10")
    assert printed_jobs(capsys.readouterr().out) == ["10", "2", "1"]


def test_losses_are_ranked_upwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, loss in (("0", 3.0), ("1", 2.0)):
        job(tmp_path, name, [f"seed={name}"], {"val/loss": loss}, started=float(name))
    end(tmp_path, {"monitor": "val/loss"})
    assert printed_jobs(capsys.readouterr().out) == ["1", "0"]


def test_older_spelling_of_the_monitor_ranks_as_well(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(sweep, {"monitor": "val_recall@10"})
    assert printed_jobs(capsys.readouterr().out) == ["2", "10", "1"]


def test_mode_of_the_trainer_is_respected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("0", 3.0), ("1", 2.0)):
        job(tmp_path, name, [f"seed={name}"], {"val/perplexity": value}, started=float(name))
    end(tmp_path, {"monitor": "val/perplexity", "mode": "min"})
    assert printed_jobs(capsys.readouterr().out) == ["1", "0"]


def test_all_failed_still_gives_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0", "1"):
        job(tmp_path, name, [f"seed={name}"], None, state="failed", started=float(name))
    end(tmp_path, {"monitor": "val/loss"})
    text = capsys.readouterr().out
    assert printed_jobs(text) == ["0", "1"]
    with open(tmp_path / "sweep.csv", newline="", encoding="utf-8") as file:
        assert [found["state"] for found in csv.DictReader(file)] == ["failed", "failed"]


def test_nothing_is_said_where_no_job_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(tmp_path, {"monitor": "val/loss"})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
