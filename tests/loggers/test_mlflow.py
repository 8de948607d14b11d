from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from genrec.loggers.published import PublishedRun, name_run
from genrec.trainers.tracking import close_loggers, guard, log_environment, publish

mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")

from genrec.loggers.mlflow import MLflow  # noqa: E402

CONFIG = {"model": {"_target_": "genrec.models.tiger.TIGER", "num_layers": 4}, "seed": 7, "output_dir": "x"}
ENVIRONMENT = {"semantic_ids_fingerprint": "f00d", "command": ["python"], "git": {"commit": "c0ffee"}}
FINAL = {"val/recall@10": 0.4, "test/recall@10": 0.3, "baseline/popularity/test/recall@10": 0.1}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables: making them takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    MLflow(save_dir=str(folder))
    return folder / "mlflow.db"


@pytest.fixture
def store(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty, tmp_path / "mlflow.db")
    return tmp_path


def run(store: Path, folder: Path, *, steps: Any = (5, 10), close: bool = True, **name: Any) -> list[Any]:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text("a page")
    (folder / "checkpoints" / "best_model.pt").write_text("weights")
    loggers = guard([MLflow(save_dir=str(store))])
    log_environment(loggers, CONFIG, ENVIRONMENT, name_run(folder, **name))
    for step in steps:
        loggers[0].log_metrics({"val/recall@10": step / 100}, step)
    if close:
        loggers[0].log_metrics({"test/recall@10": 0.3}, steps[-1])
        publish(loggers, PublishedRun(folder, FINAL, CONFIG, ENVIRONMENT))
        close_loggers(loggers)
    assert not loggers[0].failed
    return loggers


def runs(store: Path) -> tuple[Any, list[Any]]:
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    (experiment,) = [item for item in client.search_experiments() if item.name == "genrec"]
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def test_settings_curves_results_and_files_are_read_back(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "03-04-05_tiger_beauty")
    client, (found,) = runs(store)
    assert (found.info.run_name, found.info.status) == ("03-04-05_tiger_beauty", "FINISHED")
    assert found.data.params == {"model": "TIGER", "model.num_layers": "4", "seed": "7"}
    curve = client.get_metric_history(found.info.run_id, "val/recall_at_10")
    assert [(point.step, point.value) for point in curve] == [(5, 0.05), (10, 0.1)]
    assert found.data.metrics == {
        "val/recall_at_10": 0.1,
        "test/recall_at_10": 0.3,
        "final/val/recall_at_10": 0.4,
        "baseline/popularity/test/recall_at_10": 0.1,
    }
    assert found.data.tags["genrec.semantic_ids_fingerprint"] == "f00d"
    assert found.data.tags["genrec.commit"] == "c0ffee"
    for name, content in (("report.html", "a page"), ("checkpoints/best_model.pt", "weights")):
        assert Path(client.download_artifacts(found.info.run_id, name)).read_text() == content
    assert list((store / "mlflow_files").rglob("best_model.pt"))  # beside the store, wherever one works


def test_a_run_leaves_the_environment_as_it_was(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run")
    assert "MLFLOW_TRACKING_URI" not in os.environ  # the next run of a sweep may have another store


def test_runs_of_a_sweep_stand_below_one_that_is_the_sweep(store: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "03-04-05"
    for number, rate in enumerate(("1e-3", "1e-4")):
        run(store, sweep / str(number), sweep=sweep, overrides=[f"optimizer.lr={rate}"])
    _, found = runs(store)
    (parent,) = [item for item in found if item.data.tags.get("genrec.role") == "sweep"]
    assert parent.info.run_name == "03-04-05" and parent.info.status == "FINISHED"
    children = {item.info.run_name: item.data.tags["mlflow.parentRunId"] for item in found if item.info != parent.info}
    assert children == {"lr=1e-3": parent.info.run_id, "lr=1e-4": parent.info.run_id}


def test_a_resumed_run_goes_on_and_repeats_nothing(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run", steps=(5, 10), close=False)  # killed; its last checkpoint is from step 5
    run(store, tmp_path / "run", steps=(10, 15), resumed=True)
    client, (found,) = runs(store)
    curve = client.get_metric_history(found.info.run_id, "val/recall_at_10")
    assert [point.step for point in curve] == [5, 10, 15]
    run(store, tmp_path / "run")  # a new run in the same folder
    assert len(runs(store)[1]) == 2


def test_a_failed_run_is_told_as_failed(store: Path, tmp_path: Path) -> None:
    close_loggers(run(store, tmp_path / "run", close=False), success=False)
    assert [found.info.status for found in runs(store)[1]] == ["FAILED"]


def test_a_server_that_is_not_there_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    loggers = guard([MLflow(save_dir=str(tmp_path), tracking_uri="http://127.0.0.1:9")])
    begun = time.monotonic()
    log_environment(loggers, CONFIG, None, name_run(tmp_path))
    loggers[0].log_metrics({"train/loss": 1.0}, 3)
    publish(loggers, PublishedRun(tmp_path, FINAL, CONFIG))
    close_loggers(loggers)
    assert time.monotonic() - begun < 60
    assert caplog.text.count("MLflow failed and is switched off") == 1


@pytest.mark.slow
def test_two_processes_may_make_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    text = """
import sys
from pathlib import Path
from genrec.loggers.mlflow import MLflow
from genrec.loggers.published import name_run
store, number = Path(sys.argv[1]), sys.argv[2]
logger = MLflow(save_dir=str(store))
logger.begin(name_run(store / "sweep" / number, sweep=store / "sweep", overrides=[f"seed={number}"]))
for step in range(20):
    logger.log_metrics({"loss": 1.0}, step)
logger.finalize("success")
"""
    started = [subprocess.Popen([sys.executable, "-c", text, str(tmp_path), str(number)]) for number in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    found = runs(tmp_path)[1]
    assert sorted(item.info.run_name for item in found) == ["seed=0", "seed=1", "sweep"]
    assert all(item.data.metrics == {"loss": 1.0} for item in found if item.info.run_name != "sweep")
