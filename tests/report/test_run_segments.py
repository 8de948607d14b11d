"""Groups of users on the page are those of ``segments``."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from genrec.records import read_run
from genrec.report.run_segments import segments_section
from tests.report.page_reader import PageReader, shapes
from tests.report.run_folders import make_run
from tests.report.whole_runs import make_retrieval_run


def test_bars_beside_baselines_with_intervals(tmp_path: Path) -> None:
    section = segments_section(read_run(make_retrieval_run(tmp_path / "run")))
    assert section is not None
    read = PageReader(section.body)
    assert [svg.attrib["aria-label"] for svg in read.svgs] == [
        "recall@10 by history length", "ndcg@10 by history length",
        "recall@10 by popularity of the held-out items", "ndcg@10 by popularity of the held-out items"]  # fmt: skip
    groups = [one.attrib["data-name"] for one in read.svgs[0].iter() if "data-name" in one.attrib]
    assert groups == ["tiger", "item_knn", "popularity"]
    assert len(shapes(read.svgs[0], "bar")) == len(shapes(read.svgs[0], "whisker")) == 15


def test_the_numbers_are_the_means(tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run")
    section = segments_section(read_run(folder))
    users = read_run(folder).users()
    assert section is not None and users is not None
    table = PageReader(section.body).tables[0]
    assert table[0] == ["group", "users", "tiger", "item_knn", "popularity"]
    assert sum(int(row[1]) for row in table[1:]) == len(users)
    low, high = map(int, table[1][0].split(" to "))
    inside = users.filter(pl.col("history_length").is_between(low, high))
    assert float(table[1][2].split(" ")[0]) == pytest.approx(float(inside["recall@10"].mean()), abs=5e-5)  # type: ignore[arg-type]


def test_what_does_not_vary_is_no_trait(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    columns = {"user_id": [1, 2], "history_length": [5, 5], "num_targets": [1, 1], "target_popularity": [2.0, 9.0],
               "recall@20": [1.0, 0.0]}  # fmt: skip
    pl.DataFrame(columns).write_parquet(folder / "test_users.parquet")
    section = segments_section(read_run(folder))
    assert section is not None
    titles = [svg.attrib["aria-label"] for svg in PageReader(section.body).svgs]
    assert titles == ["recall@20 by popularity of the held-out items"]


def test_nothing_without_users(tmp_path: Path) -> None:
    assert segments_section(read_run(make_run(tmp_path / "run"))) is None
