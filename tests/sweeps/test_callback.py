"""What a sweep leaves: sweep.json, sweep.csv, the order of the runs, and the table of the terminal."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from genrec.artifacts import is_locked, read_json, write_json, write_text
from genrec.records import RunRecord, SweepRecord, read_run, read_sweep
from genrec.sweeps.callback import SweepTable, best_first, objectives, scales, sweep_columns, write_sweep
from genrec.sweeps.resume import sweep_key


def job(
    root: Path, name: str, overrides: list[str], final: dict[str, float] | None, *, state: str = "finished", **run: Any
) -> Path:
    """The folder that a job leaves."""
    write_json(root / name / "run.json", {"state": state, "config_key": "k", "started": 0.0, "model": "tiger", **run})
    write_text(root / name / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    if final is not None:
        write_json(root / name / "metrics.json", {"final": final, "history": {}})
    return root / name


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three jobs, the last of which failed after an earlier attempt had written metrics."""
    common = ["model=tiger", "trainer.max_epochs=1"]
    job(tmp_path, "2", [*common, "optimizer.lr=1e-3"], {"val/recall@10": 0.2, "test/recall@10": 0.1})
    job(tmp_path, "10", [*common, "optimizer.lr=3e-4"], {"val/recall@10": 0.3, "test/recall@10": 0.05})
    job(tmp_path, "11", [*common, "optimizer.lr=9"], {"val/recall@10": 0.9}, state="failed")
    return tmp_path


def hydra_config(folder: Path, trainer: dict[str, Any], monitor: str | None = None, **sweeper: Any) -> Any:
    hydra = {"sweep": {"dir": str(folder)}, "runtime": {"choices": {"hydra/sweeper": "basic"}}, "sweeper": sweeper}
    return OmegaConf.create({"hydra": hydra, "monitor": monitor, "trainer": trainer})


def run_sweep(folder: Path, trainer: dict[str, Any], monitor: str | None = None, **sweeper: Any) -> None:
    callback, config = SweepTable(), hydra_config(folder, trainer, monitor, **sweeper)
    callback.on_multirun_start(config)
    callback.on_multirun_end(config)


def printed_jobs(text: str) -> list[str]:
    """The first column of the printed table."""
    return [
        words[0]
        for line in text.splitlines()
        if (words := line.split()) and words[0].isdecimal() and words[1] != "runs,"
    ]


def test_sweep_csv_has_one_row_per_job_and_every_metric(sweep: Path) -> None:
    path = write_sweep(read_sweep(sweep))
    assert path == sweep / "sweep.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["job", "state", "optimizer.lr", "test/recall@10", "val/recall@10"]
    assert [list(found.values()) for found in rows] == [
        ["2", "finished", "1e-3", "0.1", "0.2"],
        ["10", "finished", "3e-4", "0.05", "0.3"],
        ["11", "failed", "9", "", ""],
    ]


def test_values_with_commas_stay_in_their_cell(tmp_path: Path) -> None:
    job(tmp_path, "0", ["k_values=[1,5]"], {})
    job(tmp_path, "1", ["k_values=[1]"], {})
    with open(write_sweep(read_sweep(tmp_path)), newline="", encoding="utf-8") as file:
        assert [found["k_values"] for found in csv.DictReader(file)] == ["[1,5]", "[1]"]


def test_columns_are_the_objectives_then_the_test_metrics(tmp_path: Path) -> None:
    final = {"train/loss": 1.0, "test/a": 0.1, "val/a": 0.2, "test/b": 0.3, "baseline/x/test/a": 0.4}
    job(tmp_path, "0", [], final)
    write_json(tmp_path / "0" / "resources.json", {"parameters": 7})
    run = read_run(tmp_path / "0")
    assert sweep_columns(run, ["val/a"]) == ["val/a", "test/a", "test/b"]
    assert sweep_columns(run, ["val/missing"]) == ["test/a", "test/b"]
    assert sweep_columns(run, ["resources/parameters", "val/a"]) == [
        "resources/parameters",
        "val/a",
        "test/a",
        "test/b",
    ]
    job(tmp_path, "1", [], {f"test/{name}": 0.0 for name in "abcdefghij"})
    assert len(sweep_columns(read_run(tmp_path / "1"), [])) == 6


@pytest.mark.parametrize(
    ("direction", "expected"), [("max", ["high", "zero", "failed"]), ("min", ["zero", "high", "failed"])]
)
def test_the_best_comes_first_and_the_failed_last(tmp_path: Path, direction: str, expected: list[str]) -> None:
    job(tmp_path, "failed", [], {"val/x": 5.0}, state="failed")
    job(tmp_path, "zero", [], {"val/x": 0.0})
    job(tmp_path, "high", [], {"val/x": 0.9})
    found = [RunRecord(tmp_path / name, read_json(tmp_path / name / "run.json")["state"],
                       read_json(tmp_path / name / "run.json")) for name in ("failed", "zero", "high")]  # fmt: skip
    record = SweepRecord(tmp_path, {"objectives": [["val/x", direction]]}, tuple(found))
    assert [run.folder.name for run in best_first(record)] == expected


@pytest.mark.parametrize(
    ("trainer", "monitor", "expected"),
    [
        ({"monitor": "val/recall@10"}, None, [["val/recall@10", "max"]]),
        ({"monitor": "val_recall@10"}, None, [["val/recall@10", "max"]]),  # the older spelling
        ({"monitor": "val/recall@10"}, "val/loss", [["val/loss", "min"]]),  # the root's goes before the trainer's
        ({"monitor": "val/perplexity", "mode": "min"}, None, [["val/perplexity", "min"]]),
    ],
)
def test_objective_of_a_grid_is_what_is_monitored(
    trainer: dict[str, Any], monitor: str | None, expected: list[list[str]]
) -> None:
    assert objectives(hydra_config(Path("m"), trainer, monitor)) == expected


def test_objectives_of_a_search_go_before_the_monitored_metric() -> None:
    config = hydra_config(Path("m"), {"monitor": "val/loss"}, objectives=["val/recall@10", "seconds/total"])
    assert objectives(config) == [["val/recall@10", "max"], ["seconds/total", "min"]]
    config = hydra_config(Path("m"), {"monitor": "val/loss"}, objectives=["val/a"], directions=["minimize"])
    assert objectives(config) == [["val/a", "min"]]


def test_scales_of_ranges_are_those_of_the_search() -> None:
    config = hydra_config(
        Path("m"), {}, params={"optimizer.lr": "tag(log, interval(1e-4, 1e-2))", "a": "x,y", "b": "range(1,9)"}
    )
    config.hydra.overrides = {"task": ["model.dropout=interval(0, 0.5)", "seed=1", "b=tag(log, int(interval(1, 99)))"]}
    assert scales(config) == {"optimizer.lr": "log", "model.dropout": "linear", "b": "log"}


def test_table_at_the_end_prints_the_best_first_with_the_state_of_the_failed(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(sweep, {"monitor": "val/recall@10"})
    text = capsys.readouterr().out
    assert printed_jobs(text) == ["10", "2", "11"]
    assert " lr " in text
    assert "0.3000" in text and "failed" in text and "sweep.csv" in text
    assert (sweep / "sweep.csv").exists()


def test_losses_are_ranked_upwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, loss in (("0", 3.0), ("1", 2.0)):
        job(tmp_path, name, [f"seed={name}"], {"val/loss": loss})
    run_sweep(tmp_path, {"monitor": "val/loss"})
    assert printed_jobs(capsys.readouterr().out)[:2] == ["1", "0"]


def test_all_failed_still_gives_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0", "1"):
        job(tmp_path, name, [f"seed={name}"], None, state="failed")
    run_sweep(tmp_path, {"monitor": "val/loss"})
    assert printed_jobs(capsys.readouterr().out) == ["0", "1"]
    with open(tmp_path / "sweep.csv", newline="", encoding="utf-8") as file:
        assert [found["state"] for found in csv.DictReader(file)] == ["failed", "failed"]


def test_nothing_is_printed_where_no_job_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_sweep(tmp_path, {"monitor": "val/loss"})
    assert capsys.readouterr().out == ""
    assert read_json(tmp_path / "sweep.json")["state"] == "finished"


def test_seeds_are_told_as_mean_and_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in ((1, 0.1), (2, 0.2), (3, 0.3)):
        job(tmp_path, str(seed), [f"seed={seed}"], {"val/recall@10": value})
    run_sweep(tmp_path, {"monitor": "val/recall@10"})
    text = capsys.readouterr().out
    # t(2, .975) = 4.3027, standard error .1 / sqrt(3): .2 ± .2484
    assert "0.2000 ± 0.1000" in text and "[-0.0484, 0.4484]" in text


def test_folder_of_a_running_sweep_is_held_and_its_state_is_told(tmp_path: Path) -> None:
    callback, config = SweepTable(), hydra_config(tmp_path, {"monitor": "val/loss"})
    callback.on_multirun_start(config)
    assert is_locked(tmp_path / ".lock")
    assert read_json(tmp_path / "sweep.json")["state"] == "running"
    with pytest.raises(SystemExit):
        SweepTable().on_multirun_start(config)
    callback.on_multirun_end(config)
    assert read_json(tmp_path / "sweep.json")["state"] == "finished"


def test_it_goes_to_workers_without_its_lock(tmp_path: Path) -> None:
    callback, config = SweepTable(), hydra_config(tmp_path, {"monitor": "val/loss"})
    callback.on_multirun_start(config)
    pickle.loads(pickle.dumps(callback)).on_job_end(OmegaConf.create({"hydra": {"mode": "RUN"}}), None)
    assert is_locked(tmp_path / ".lock")
    callback.on_multirun_end(config)


def test_page_is_kept_up_to_date_but_not_all_the_time(sweep: Path) -> None:
    config = OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(sweep)}}})
    page = sweep / "report.html"
    SweepTable().on_job_end(config, None)
    first = page.stat().st_mtime_ns
    SweepTable().on_job_end(config, None)
    assert page.stat().st_mtime_ns == first
    os.utime(page, (0, 0))
    SweepTable().on_job_end(config, None)
    assert page.stat().st_mtime_ns >= first


def write_earlier(folder: Path, words: list[str]) -> str:
    key = sweep_key(words)
    write_json(
        folder / "sweep.json", {"state": "running", "started": 5.0, "seconds": 60.0, "command": words, "key": key}
    )
    return key


def test_folder_of_another_sweep_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_earlier(tmp_path, ["-m", "model.dropout=0.1,0.2"])
    before = (tmp_path / "sweep.json").read_bytes()
    monkeypatch.setattr("sys.argv", ["run", "-m", "seed=1,2"])
    with pytest.raises(SystemExit) as stopped:
        SweepTable().on_multirun_start(hydra_config(tmp_path, {"monitor": "val/loss"}))
    assert stopped.value.code == 1 and "model.dropout=0.1,0.2" in caplog.text
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_continued_sweep_keeps_its_start_its_command_and_the_seconds_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_earlier(tmp_path, ["-m", "seed=1,2"])
    monkeypatch.setattr("sys.argv", ["run", "-m", "seed=1,2", "resume=auto"])
    run_sweep(tmp_path, {"monitor": "val/loss"})
    found = read_json(tmp_path / "sweep.json")
    assert (found["started"], found["command"], found["key"]) == (5.0, ["-m", "seed=1,2"], key)
    assert found["seconds"] >= 60.0
