"""The results of a run: every number in its table is the one in ``metrics.json``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from genrec.records import read_run
from genrec.report.run_results import headline_metric, published_of, results_section
from tests.report.page_reader import PageReader, shapes
from tests.report.run_folders import make_run
from tests.report.whole_runs import make_retrieval_run

BEAUTY = {"split": "leave_one_out", "data": "amazon_beauty"}


def section(folder: Path) -> PageReader:
    found = results_section(read_run(folder))
    assert found is not None
    return PageReader(found.body)


def test_the_table_holds_the_numbers_of_the_record(tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run")
    final = read_run(folder).final
    table = section(folder).tables[0]
    columns = table[0][2:]
    assert columns == ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    rows = {row[0]: row[2:] for row in table[1:]}
    for name, prefix in (("tiger", ""), ("item_knn", "baseline/item_knn/"), ("popularity", "baseline/popularity/")):
        assert [float(cell) for cell in rows[name]] == pytest.approx(
            [final[f"{prefix}test/{c}"] for c in columns], abs=5e-5
        )
    assert rows["best that can be reached"] == ["-", "0.6000", "-", "-"]
    assert rows["tiger as a share of it"] == ["-", "50 %", "-", "-"]


def test_the_best_of_each_column_is_marked(tmp_path: Path) -> None:
    final = {"test/auc": 0.8, "test/log_loss": 0.5, "baseline/x/test/auc": 0.7, "baseline/x/test/log_loss": 0.4}
    read = section(make_run(tmp_path / "run", final=final, monitor="val/auc"))
    marked = [
        attributes["data-value"]
        for tag, attributes in read.tags
        if tag == "td" and "best" in (attributes.get("class") or "")
    ]
    assert marked == ["0.8", "0.4"]  # the larger area, the smaller loss


def test_all_metrics_are_there_once(tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run")
    final = read_run(folder).final
    table = section(folder).tables[-1]
    assert table[0] == ["metric", "tiger", "item_knn", "popularity", "ceiling"]
    numbers = [cell for row in table[1:] for cell in row[1:] if cell != "-"]
    assert len(numbers) == len(final)
    row = next(row for row in table if row[0] == "test/recall@10")
    assert [float(cell) for cell in row[1:]] == [0.3, 0.4, 0.05, 0.6]


def test_the_charts_order_everything_by_the_metric(tmp_path: Path) -> None:
    read = section(make_retrieval_run(tmp_path / "run"))
    assert [svg.attrib["aria-label"] for svg in read.svgs] == ["Test recall@10", "Test ndcg@10"]
    groups = sorted((float(bar["y"]), bar["data-x"], bar["data-y"]) for bar in shapes(read.svgs[0], "bar"))
    assert [group[1:] for group in groups] == [("ceiling", "0.6000"), ("item_knn", "0.4000"), ("tiger", "0.3000"),
                                               ("popularity", "0.0500")]  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "config", "expected"),
    [
        (BEAUTY, {}, True),
        ({**BEAUTY, "data": "synthetic"}, {}, False),
        ({**BEAUTY, "split": "global_time"}, {}, False),
        ({"split": "leave_one_out", "data": "amazon"}, {"data": {"source": {"category": "Toys_and_Games"}}}, True),
        ({"data": "amazon_beauty"}, {"split": {"_target_": "genrec.data.splits.LeaveOneOut"}}, True),
        ({"data": "amazon_beauty"}, {"split": {"_target_": "genrec.data.splits.GlobalTime"}}, False),
    ],
)
def test_published_rows_only_where_the_protocol_is_theirs(
    tmp_path: Path, choices: dict[str, str], config: dict[str, Any], expected: bool
) -> None:
    folder = make_run(tmp_path / "run", choices=choices, config=config, final={"test/recall@10": 0.08})
    assert bool(published_of(read_run(folder))) is expected


def test_published_rows_name_their_source_and_warn(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", choices=BEAUTY, config={"filter_seen": True},
                      final={"test/recall@10": 0.08, "test/ndcg@10": 0.04})  # fmt: skip
    read = section(folder)
    (tiger,) = [row for row in read.tables[0] if row[0].startswith("TIGERRajput")]
    assert tiger == ["TIGERRajput et al. 2023, arXiv 2305.05065; seen items kept", "published", "0.0648", "0.0384"]
    assert "protocols may differ" in read.text and "this run masks them" in read.text


def test_rows_are_not_held_against_lists(tmp_path: Path) -> None:
    assert published_of(read_run(make_run(tmp_path / "run", choices=BEAUTY, final={"test/auc": 0.8}))) == []


def test_the_headline_falls_back(tmp_path: Path) -> None:
    final = {"test/log_loss": 0.5, "baseline/x/test/log_loss": 0.4, "baseline/y/test/log_loss": 0.6}
    record = read_run(make_run(tmp_path / "a", final=final, monitor="val/log_loss"))
    assert headline_metric(record) == ("test/log_loss", "0.5000", "best baseline: x 0.4000")
    assert headline_metric(read_run(make_run(tmp_path / "b", final={}))) is None


def test_nothing_without_a_test(tmp_path: Path) -> None:
    assert results_section(read_run(make_run(tmp_path / "run", final={"val/recall@10": 0.1}))) is None


def test_the_best_calibration_is_the_one_nearest_to_one(tmp_path: Path) -> None:
    final = {"test/auc": 0.7, "test/calibration": 1.1, "baseline/base_rate/test/calibration": 0.3,
             "baseline/base_rate/test/auc": 0.5}  # fmt: skip
    found = results_section(read_run(make_run(tmp_path / "run", final=final)))
    assert found is not None
    assert re.findall(r'class="number best"[^>]*>([^<]+)', found.body) == ["0.7000", "1.1000"]


def test_charts_and_the_headline_take_the_calibration_nearest_to_one_for_the_best(tmp_path: Path) -> None:
    final = {"test/calibration": 1.3, "baseline/a/test/calibration": 0.2, "baseline/b/test/calibration": 0.9}
    folder = make_run(tmp_path / "run", final=final, monitor="val/calibration", model="fm")
    assert headline_metric(read_run(folder)) == ("test/calibration", "1.3000", "best baseline: b 0.9000")
    [chart] = section(folder).svgs
    assert chart.attrib["aria-label"] == "Test calibration, nearest to 1 is best"
    assert [bar["data-x"] for bar in sorted(shapes(chart, "bar"), key=lambda bar: float(bar["y"]))] == ["b", "fm", "a"]


def test_what_was_not_chosen_by_a_test_metric_is_headed_by_the_usual_one(tmp_path: Path) -> None:
    final = {"test/recall@5": 0.1, "test/recall@10": 0.2, "test/ndcg@5": 0.05}
    run = read_run(make_run(tmp_path / "run", final=final, monitor="train/loss"))
    assert headline_metric(run) == ("test/recall@10", "0.2000", "")
