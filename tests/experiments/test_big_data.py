"""The study of large logs: its data follow from the seed, its commands run, and a limit is told as one."""

import csv

import numpy as np
import polars as pl
import pytest

from experiments.big_data import __main__ as program
from experiments.big_data import invent as inventing
from experiments.big_data.invent import invent


def test_invented_logs_are_in_order_of_time_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(inventing, "PIECE", 500)
    invent(tmp_path / "a", 1700, 60, 250)
    (tmp_path / "a" / "interactions-0002.parquet").unlink()
    before = pl.read_parquet(tmp_path / "a" / "interactions-0001.parquet")
    invent(tmp_path / "a", 1700, 60, 250)  # goes on where it was stopped
    invent(tmp_path / "b", 1700, 60, 250)
    log, again = (pl.read_parquet(tmp_path / name / "*.parquet") for name in "ab")
    assert log.height == 1700 and log.equals(again)
    assert log.slice(500, 500).equals(before)
    assert log["timestamp"].is_sorted()
    assert set(log["user_id"]) <= set(range(60)) and set(log["item_id"]) <= set(range(250))
    topics = log.with_columns(topic=pl.col("item_id") // 100).group_by("user_id", "topic").len()
    largest = topics.group_by("user_id").agg(pl.col("len").max() / pl.col("len").sum())
    assert np.mean(largest["len"].to_numpy()) > 0.5  # users have favourite topics


@pytest.mark.slow
def test_the_study_of_a_small_log(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").write_text("of somebody else")
    options = ["--millions", "0.02", "--folder", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    assert program.main(options) == 0
    with open(tmp_path / "out" / program.RESULTS, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["way"] for row in rows] == [program.FIRST, program.AGAIN, program.MEMORY]
    assert {row["state"] for row in rows} == {"finished"}
    assert len({row["popularity_recall_at_10"] for row in rows}) == 1  # all ways see the same data
    assert "read into memory" in (tmp_path / "out" / program.PLOT).read_text()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mine.txt"]


def test_a_command_that_may_not_allocate_is_told_as_such(tmp_path):
    invent(tmp_path / "log", 2000, 50, 60)
    row = program.Commands(tmp_path, memory_gib=0.05).row(2000, program.FIRST, [f"data.path={tmp_path / 'log'}"])
    assert row.state == "out of memory" and row.fit_seconds is None
    program.write([row], tmp_path / "out", 6.0)  # of which no picture can show anything yet
    page = "\n".join(program.table_lines([row]))
    assert "| 2,000 | from disk, first time |" in page and "out of memory" in page
