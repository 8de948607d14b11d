from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from genrec.artifacts import read_json, write_json
from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log
from genrec.data.interactions import SourceData
from genrec.data.storage import is_saved, load_folder, save_folder
from genrec.graph import Relation


@pytest.fixture
def data():
    frame = pl.DataFrame(
        {
            "user_id": [2**60, 5, 2**60],
            "item_id": ["y", "x", "x"],
            "timestamp": [9, 3, 9],
            "rating": [1.5, 2.0, 3.0],
            "day": ["mon", "tue", "wed"],
        }
    )
    items = pl.DataFrame({"item_id": ["z", "y", "x"], "title": ["Z", None, "X"]})
    log, report = build_log(frame, items=items, cleaning=Cleaning(unused_items="keep"))
    return SourceData(log, report)


def test_round_trip_is_exact(data, tmp_path):
    save_folder(data, tmp_path, name="mine", vectors=np.eye(3, dtype=np.float32))
    loaded = load_folder(tmp_path)
    assert loaded.log.fingerprint == data.log.fingerprint
    assert loaded.log.item_ids.tolist() == ["z", "y", "x"]  # the unused item keeps its place
    assert loaded.report.lines() == data.report.lines()
    assert loaded.folder == tmp_path
    assert np.load(tmp_path / "item_vectors.npy").shape == (3, 3)
    assert read_json(tmp_path / "dataset.json")["columns"] == ["user_id", "item_id", "timestamp", "rating", "day"]


def test_what_is_not_saved_is_told(data, tmp_path, caplog):
    tags = Relation("item", "tag", np.array([0]), np.array([0]), np.ones(1), ["new"])
    save_folder(replace(data, relations={"has_tag": tags}), tmp_path, name="mine")
    assert "the relations has_tag are not saved" in caplog.text


def test_log_without_tables_or_times(tmp_path):
    log, report = build_log(pl.DataFrame({"user_id": [1, 1], "item_id": [4, 4]}))
    save_folder(SourceData(log, report), tmp_path, name="bare")
    loaded = load_folder(tmp_path).log
    assert (loaded.timestamps, loaded.item_table, loaded.user_table) == (None, None, None)
    assert loaded.fingerprint == log.fingerprint


def test_is_saved_compares_the_origin(data, tmp_path):
    assert not is_saved(tmp_path)
    save_folder(data, tmp_path, name="mine", origin={"raw": 12})
    assert is_saved(tmp_path)
    assert is_saved(tmp_path, {"raw": 12})
    assert not is_saved(tmp_path, {"raw": 13})


def test_wrong_number_of_vectors(data, tmp_path):
    with pytest.raises(GenrecError, match="2 item vectors were given for 3 items"):
        save_folder(data, tmp_path, name="mine", vectors=np.eye(2))
    assert not is_saved(tmp_path)


def test_changed_tables_are_noticed(data, tmp_path):
    save_folder(data, tmp_path, name="mine")
    pl.read_parquet(tmp_path / "items.parquet").head(2).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(GenrecError, match=r"num_items is 2.*Remove dataset\.json"):
        load_folder(tmp_path)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(GenrecError, match=r"items\.parquet is missing"):
        load_folder(tmp_path)


@pytest.mark.parametrize("report", [[], {"notes": {}}, {"notes": [1]}, {"counts": []}, {"counts": {"users": "many"}}])
def test_a_report_that_is_none_is_refused(data, tmp_path, report):
    save_folder(data, tmp_path, name="mine")
    path = tmp_path / "dataset.json"
    write_json(path, {**read_json(path, dict), "report": report})
    with pytest.raises(GenrecError, match="describes no data set"):
        load_folder(tmp_path)


def test_another_format_version(data, tmp_path):
    save_folder(data, tmp_path, name="mine")
    write_json(tmp_path / "dataset.json", {"format": 99})
    with pytest.raises(GenrecError, match="format 99"):
        load_folder(tmp_path)
