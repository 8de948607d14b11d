"""Curves show what was measured, and mark the epoch that was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrec.records import read_run
from genrec.report.run_curves import best_epoch, curves_section, series_of
from tests.report.page_reader import PageReader, shapes
from tests.report.run_folders import make_run
from tests.report.whole_runs import make_retrieval_run

ROWS = [{"epoch": 1, "train/loss": 3.0, "val/auc": 0.6}, {"epoch": 2, "train/loss": 2.0},
        {"epoch": 3, "train/loss": 1.0, "val/auc": 0.5}]  # fmt: skip


def test_the_best_epoch_follows_the_direction(tmp_path: Path) -> None:
    up = read_run(make_run(tmp_path / "a", epochs=ROWS, monitor="val/auc"))
    down = read_run(make_run(tmp_path / "b", epochs=ROWS, monitor="val/auc", direction="min"))
    assert best_epoch(up) == (0.6, 1, 3) and best_epoch(down) == (0.5, 3, 3)
    assert best_epoch(read_run(make_run(tmp_path / "c", epochs=ROWS, monitor="val/other"))) is None


def test_epochs_without_a_measurement_are_left_out(tmp_path: Path) -> None:
    found = series_of(read_run(make_run(tmp_path / "run", epochs=ROWS)), "val/auc")
    assert found is not None and (found.x, found.y) == ([1, 3], [0.6, 0.5])


def test_charts_hold_the_history(tmp_path: Path) -> None:
    record = read_run(make_retrieval_run(tmp_path / "run"))
    section = curves_section(record)
    assert section is not None
    charts = {svg.attrib["aria-label"]: svg for svg in PageReader(section.body).svgs}
    assert list(charts) == ["Validation recall", "Loss", "Validation ndcg", "Learning rate"]
    recall = charts["Validation recall"]
    drawn = [one for one in recall.iter() if one.attrib.get("data-name") == "recall@10"]
    points = [(point["data-x"], float(point["data-y"])) for point in shapes(drawn[0], "point")]
    assert points == [(str(row["epoch"]), round(row["val/recall@10"], 4)) for row in record.epochs]
    assert [one.text for one in recall.iter() if one.attrib.get("class") == "mark-name"] == ["best epoch: 7"]
    levels = [one for one in recall.iter() if one.attrib.get("data-name") == "item_knn recall@10"]
    assert {point["data-y"] for point in shapes(levels[0], "point")} == {"0.4000"}


def test_tasks_share_a_chart_and_the_rest_is_folded(tmp_path: Path) -> None:
    rows = [{"epoch": e, "val/click/auc": 0.5, "val/buy/auc": 0.6, "val/buy/brier": 0.1, "train/grad_norm": 2.0,
             "train/loss_click": 1.0, "train/loss_buy": 1.0} for e in (1, 2)]  # fmt: skip
    section = curves_section(read_run(make_run(tmp_path / "run", epochs=rows, monitor="val/click/auc")))
    assert section is not None
    names = [svg.attrib["aria-label"] for svg in PageReader(section.body).svgs]
    assert names == ["Validation auc", "Parts of the training loss", "Validation brier", "train/grad_norm"]
    shown, _, folded = section.body.partition("<details")
    assert "Validation auc" in shown and "Validation brier" not in shown and "Validation brier" in folded


def test_one_epoch_is_no_curve(tmp_path: Path) -> None:
    assert curves_section(read_run(make_run(tmp_path / "run", epochs=ROWS[:1]))) is None


def test_the_epoch_that_was_chosen_is_the_one_that_is_marked(tmp_path: Path) -> None:
    rows = [{"epoch": e, "train/loss": 1.0, "val/auc": 0.6 + e / 1000} for e in (1, 2)]  # min_delta passed over 2
    record = read_run(make_run(tmp_path / "run", epochs=rows, monitor="val/auc", best_epoch=1))
    assert best_epoch(record) == (0.601, 1, 2)


@pytest.mark.parametrize(
    ("state", "chosen", "told"),
    [
        ("finished", 2, "The best epoch is that of the monitored metric; its weights are tested."),
        ("finished", 0, "The weights of the last epoch are tested."),
        ("finished", None, "The best epoch is that of the monitored metric."),
        ("pruned", 2, "The best epoch is that of the monitored metric."),
    ],
)
def test_which_weights_were_tested_is_told_where_it_is_known(
    tmp_path: Path, state: str, chosen: int | None, told: str
) -> None:
    section = curves_section(
        read_run(make_run(tmp_path / "run", epochs=ROWS, monitor="train/loss", state=state, best_epoch=chosen))
    )
    assert section is not None and section.note == told
