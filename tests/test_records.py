"""Run and sweep folders read back: states, what is missing, what is broken."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import Any

import pytest

from genrec.artifacts import write_json, write_text
from genrec.contracts import GenrecError
from genrec.records import find_runs, is_run, is_sweep, read_run, read_sweep


def make_run(folder: Path, state: str = "finished", **facts: Any) -> Path:
    write_json(folder / "run.json", {"state": state, "config_key": "k", "started": 1.0, **facts})
    return folder


def test_a_running_run_whose_folder_nobody_holds_was_killed(tmp_path: Path) -> None:
    make_run(tmp_path, "running")
    write_text(tmp_path / ".lock", "")
    assert read_run(tmp_path).state == "killed"
    with open(tmp_path / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert read_run(tmp_path).state == "running"
    assert read_run(tmp_path).state == "killed"


@pytest.mark.parametrize("state", ["finished", "failed", "pruned"])
def test_other_states_stand_as_they_are_written(tmp_path: Path, state: str) -> None:
    assert read_run(make_run(tmp_path, state)).state == state


def test_everything_but_run_json_may_be_missing(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path))
    assert (run.config, run.overrides, run.final, run.epochs, run.seconds, run.samples) == ({}, {}, {}, [], {}, [])
    assert run.users() is None and run.rows() is None and run.error is None and run.ended is None


def test_model_is_named_by_the_run_or_by_its_class(tmp_path: Path) -> None:
    write_text(tmp_path / "config.yaml", "model:\n  _target_: genrec.models.tiger_item.TigerItem\n")
    assert read_run(make_run(tmp_path)).model == "tiger_item"
    assert read_run(make_run(tmp_path, model="mine")).model == "mine"


def test_overrides_are_named_without_their_signs_and_split_once(tmp_path: Path) -> None:
    write_text(tmp_path / "overrides.yaml", "- +model.extra=a=b\n- ~baselines.item_knn\n- ++seed=3\n- k_values=[1,5]\n")
    assert read_run(make_run(tmp_path)).overrides == {
        "model.extra": "a=b",
        "baselines.item_knn": "",
        "seed": "3",
        "k_values": "[1,5]",
    }


def test_failed_runs_have_no_metrics_even_where_an_earlier_attempt_left_some(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"final": {"val/x": 1.0}, "history": {}})
    assert read_run(make_run(tmp_path, "failed")).final == {}
    assert read_run(make_run(tmp_path, "finished")).final == {"val/x": 1.0}
    assert read_run(make_run(tmp_path, "pruned")).final == {"val/x": 1.0}


def test_folders_are_told_apart(tmp_path: Path) -> None:
    make_run(tmp_path / "single")
    make_run(tmp_path / "sweep" / "0")
    write_json(tmp_path / "named" / "sweep.json", {})
    assert [is_run(tmp_path / name) for name in ("single", "sweep", "named")] == [True, False, False]
    assert [is_sweep(tmp_path / name) for name in ("single", "sweep", "named")] == [False, True, True]
    with pytest.raises(GenrecError, match="not a run folder"):
        read_run(tmp_path / "sweep")
    with pytest.raises(GenrecError, match="not the folder of a sweep"):
        read_sweep(tmp_path / "single")


def test_runs_of_a_sweep_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "0"):
        make_run(tmp_path / name)
    (tmp_path / "stray").mkdir()
    assert [run.folder.name for run in read_sweep(tmp_path).runs] == ["0", "2", "10"]


def test_swept_are_the_overrides_that_differ_in_the_order_given(tmp_path: Path) -> None:
    write_text(make_run(tmp_path / "0") / "overrides.yaml", "- model=tiger\n- trainer.patience=2\n- lr=1\n")
    second = "- model=tiger\n- trainer.patience=4\n- lr=1\n- only=here\n"
    write_text(make_run(tmp_path / "1") / "overrides.yaml", second)
    assert read_sweep(tmp_path).swept == ["trainer.patience", "only"]


def test_sweep_without_a_holder_was_killed_and_old_ones_have_ended(tmp_path: Path) -> None:
    make_run(tmp_path / "0", monitor="val/loss", direction="min")
    assert read_sweep(tmp_path).state == "finished"
    assert read_sweep(tmp_path).objectives == [("val/loss", "min")]
    write_json(tmp_path / "sweep.json", {"state": "running", "objectives": [["a", "max"], ["b", "min"]]})
    assert read_sweep(tmp_path).state == "killed"
    assert read_sweep(tmp_path).objectives == [("a", "max"), ("b", "min")]


def test_broken_record_is_told_of_and_the_others_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_run(tmp_path / "a" / "good")
    write_text(tmp_path / "b" / "run.json", "{")
    with caplog.at_level(logging.WARNING):
        assert [run.folder.name for run in find_runs(tmp_path)] == ["good"]
    assert "not valid JSON" in caplog.text


def test_what_is_being_deleted_is_not_found(tmp_path: Path) -> None:
    make_run(tmp_path / ".going" / "0")
    assert list(find_runs(tmp_path)) == []
    assert [run.folder.name for run in find_runs(tmp_path / ".going")] == ["0"]  # hidden from outside only


def test_record_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "run.json", "[1]\n")
    with pytest.raises(
        GenrecError, match=r"run\.json is not as genrec wrote it: it begins with \[1\], where a mapping"
    ):
        read_run(tmp_path)


def test_numbers_are_found_by_their_names(tmp_path: Path) -> None:
    make_run(tmp_path)
    write_json(tmp_path / "metrics.json", {"final": {"val/x": 0.5, "tokenizer/usage_rate": 1}, "history": {}})
    write_json(tmp_path / "timing.json", {"total": 3.0})
    write_json(tmp_path / "resources.json", {"parameters": 7})
    run = read_run(tmp_path)
    names = ["val/x", "seconds/total", "resources/parameters", "tokenizer/usage_rate", "seconds/fit", "val/y"]
    assert [run.measured(name) for name in names] == [0.5, 3.0, 7.0, 1.0, None, None]


@pytest.mark.parametrize("name", ["metrics.json", "overrides.yaml", "test_users.parquet"])
def test_a_file_that_is_no_text_or_cut_short_is_named(tmp_path: Path, name: str) -> None:
    (make_run(tmp_path) / name).write_bytes(b"PAR1\xff\xfe\x00")
    run = read_run(tmp_path)
    readers = {"metrics.json": lambda: run.final, "overrides.yaml": lambda: run.overrides}
    with pytest.raises(GenrecError, match=name):
        readers.get(name, run.users)()


def test_a_sweep_is_read_without_its_broken_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        make_run(tmp_path / str(number))
    (tmp_path / "1" / "run.json").write_bytes(b"\xff{")
    with caplog.at_level(logging.WARNING):
        assert [run.folder.name for run in read_sweep(tmp_path).runs] == ["0", "2"]
    assert "1/run.json" in caplog.text
