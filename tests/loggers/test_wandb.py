"""Everything offline; what a run folder of W&B holds is read back from its file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genrec.loggers.published import PublishedRun, name_run
from genrec.loggers.wandb import Wandb
from genrec.trainers.tracking import close_loggers, guard, log_environment, publish

CONFIG = {"model": {"_target_": "genrec.models.tiger.TIGER", "num_layers": 4}, "seed": 7}
ENVIRONMENT = {"semantic_ids_fingerprint": "f00d", "data_fingerprint": "d1", "config_key": "k"}
FINAL = {"val/recall@10": 0.4, "test/recall@10": 0.3, "baseline/popularity/test/recall@10": 0.1}
SECRET = "5ec2e7" * 7  # of the shape of a key
_BLOCK, _HEADER = 32768, 7


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.delenv("WANDB_MODE", raising=False)


def records(folder: Path) -> list[Any]:
    """The records in the file of an offline run that has ended; W&B's own process writes the last of them meanwhile."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(200):
        found = [_record(text) for text in _chunks(path.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} was not finished")


def _record(text: bytes) -> Any:
    from wandb.proto import wandb_internal_pb2

    record: Any = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
    record.ParseFromString(text)
    return record


def _chunks(data: bytes) -> Iterator[bytes]:
    """A header of 7 bytes, then blocks as in a LevelDB log, whose records begin with a checksum (4 bytes), a length (2)
    and a type (1: whole, 2: first, 3: middle, 4: last)."""
    place, partial = _HEADER, b""
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + _HEADER + length > len(data):
            return
        partial += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):
            yield partial
            partial = b""


def of_kind(folder: Path, kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records(folder) if record.WhichOneof("record_type") == kind]


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def make_files(folder: Path) -> None:
    for name in ("report.html", "semantic_ids.npz", "checkpoints/best_model.pt", "checkpoints/final_model.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a sweep that has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_API_KEY", SECRET)
        patch.delenv("WANDB_MODE", raising=False)
        sweep = tmp_path_factory.mktemp("2026-01-02") / "03-04-05"
        folder = sweep / "0"
        make_files(folder)
        loggers = guard([Wandb(save_dir=str(folder), tags=["mine"])])
        log_environment(loggers, CONFIG, ENVIRONMENT, name_run(folder, sweep=sweep, overrides=["optimizer.lr=1e-3"]))
        for step in (5, 10, 8, 20):
            loggers[0].log_metrics({"train/loss": 1.0 / step}, step)
        publish(loggers, PublishedRun(folder, FINAL, CONFIG, ENVIRONMENT))
        close_loggers(loggers)
        assert not loggers[0].failed
        return folder


def test_a_run_of_a_sweep_has_its_name_and_the_group_of_the_sweep(folder: Path) -> None:
    (run,) = of_kind(folder, "run")
    assert (run.display_name, run.run_group, run.job_type) == ("lr=1e-3", "03-04-05", "sweep")
    assert (run.project, list(run.tags)) == ("genrec", ["mine"])


def test_config_and_environment_are_there(folder: Path) -> None:
    found: dict[str, Any] = {}
    for record in [*of_kind(folder, "config"), *(run.config for run in of_kind(folder, "run"))]:
        found |= values(record.update)
    assert found["model"]["num_layers"] == 4 and found["seed"] == 7
    assert found["environment"] == ENVIRONMENT


def test_steps_never_go_backwards(folder: Path) -> None:
    rows = [values(row.item) for row in of_kind(folder, "history")]
    assert [row["trainer/global_step"] for row in rows] == [5, 10, 10, 20]
    assert [row["train/loss"] for row in rows] == [1 / 5, 1 / 10, 1 / 8, 1 / 20]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]


def test_the_summary_has_the_final_metrics(folder: Path) -> None:
    found: dict[str, Any] = {}
    for record in of_kind(folder, "summary"):
        found |= values(record.update)
    assert {name: found[name] for name in FINAL} == FINAL


def test_report_ids_and_best_checkpoint_are_artifacts(folder: Path) -> None:
    found = {artifact.name: artifact for artifact in of_kind(folder, "artifact")}
    (run,) = of_kind(folder, "run")
    assert {name: artifact.type for name, artifact in found.items()} == {
        f"report-{run.run_id}": "report",
        "semantic-ids-f00d": "semantic-ids",
        f"best-model-{run.run_id}": "model",
    }
    for artifact in found.values():
        metadata = json.loads(artifact.metadata)
        assert metadata["semantic_ids_fingerprint"] == "f00d" and metadata["seed"] == 7
        assert metadata["metrics"] == {"val/recall@10": 0.4, "test/recall@10": 0.3}
    (entry,) = found[f"best-model-{run.run_id}"].manifest.contents
    assert entry.path == "checkpoints/best_model.pt"
    assert Path(entry.local_path).resolve() == (folder / "checkpoints/best_model.pt").resolve()  # not a copy


def test_the_run_ends_well_and_no_file_holds_the_key(folder: Path) -> None:
    (ended,) = of_kind(folder, "exit")
    assert ended.exit_code == 0
    assert [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


def test_names_that_were_given_stay(tmp_path: Path) -> None:
    logger = Wandb(save_dir=str(tmp_path), name="mine", group="ours")
    logger.begin(name_run(tmp_path / "0", sweep=tmp_path, overrides=["seed=1"]))
    assert (logger._wandb_init["name"], logger._wandb_init["group"]) == ("mine", "ours")


def test_without_a_network_the_run_is_logged_offline_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    wandb.teardown()  # W&B reads its environment once
    loggers = guard([Wandb(save_dir=str(tmp_path), offline=False, timeout=2.0)])
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "genrec"):
        log_environment(loggers, CONFIG, None, name_run(tmp_path))
        loggers[0].log_metrics({"train/loss": 1.0}, 3)
        publish(loggers, PublishedRun(tmp_path, FINAL, CONFIG))
        close_loggers(loggers)
    assert time.monotonic() - begun < 60  # and not the minutes that W&B would try
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("genrec")]
    assert "wandb sync" in warning and SECRET not in caplog.text
    assert not loggers[0].failed
    assert [values(row.item)["train/loss"] for row in of_kind(tmp_path, "history")] == [1.0]


class Service:
    """Stands in for W&B's online service: what ``wandb.init`` was asked for, and what was logged."""

    def __init__(self, *, resumed_at: int | None) -> None:
        self.asked: dict[str, Any] = {}
        self.steps: list[int] = []
        self.resumed_at = resumed_at

    def init(self, **options: Any) -> Any:
        self.asked = options
        summary = {} if self.resumed_at is None else {"trainer/global_step": self.resumed_at}
        return SimpleNamespace(
            id="abc", summary=summary, resumed=self.resumed_at is not None, define_metric=lambda *args, **options: None,
            log=lambda row: self.steps.append(row["trainer/global_step"]),
        )  # fmt: skip


def test_a_resumed_online_run_goes_on_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    service = Service(resumed_at=20)
    monkeypatch.setattr(wandb, "init", service.init)
    (tmp_path / "wandb" / "run-20260102_030405-abc").mkdir(parents=True)
    logger = Wandb(save_dir=str(tmp_path), offline=False)
    logger.begin(name_run(tmp_path, resumed=True))
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1.0}, step)
    assert service.asked["id"] == "abc" and service.asked["resume"] == "allow"
    assert service.steps == [20, 30]
    assert not logger.starts_empty


def test_a_new_online_run_in_an_old_folder_is_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    service = Service(resumed_at=None)
    monkeypatch.setattr(wandb, "init", service.init)
    (tmp_path / "wandb" / "run-20260102_030405-abc").mkdir(parents=True)
    logger = Wandb(save_dir=str(tmp_path), offline=False)
    logger.begin(name_run(tmp_path))
    logger.log_metrics({"train/loss": 1.0}, 10)
    assert service.asked["id"] is None and service.steps == [10]


def test_a_resumed_offline_run_is_told_its_epochs_again(tmp_path: Path) -> None:
    assert Wandb(save_dir=str(tmp_path)).starts_empty
