"""Calibration, ROC curves and histograms by known answers and against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as reference_curve

from genrec.records import read_run
from genrec.report.run_ranking import area, ranking_section, reliability, roc_curve
from tests.report.page_reader import PageReader, shapes
from tests.report.run_folders import make_run
from tests.report.tested_runs import make_row_run
from tests.report.whole_runs import make_ranking_run


def drawn_rows(seed: int = 0, n: int = 500, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    predictions = random.random(n).round(1 if ties else 6)
    return (random.random(n) < predictions).astype(float), predictions


@pytest.mark.parametrize("ties", [True, False])
def test_the_curve_and_its_area_are_those_of_scikit_learn(ties: bool) -> None:
    labels, predictions = drawn_rows(ties=ties)
    false_rates, true_rates = roc_curve(labels, predictions)
    expected = reference_curve(labels, predictions, drop_intermediate=False)
    assert false_rates == pytest.approx(expected[0]) and true_rates == pytest.approx(expected[1])
    assert area(false_rates, true_rates) == pytest.approx(roc_auc_score(labels, predictions))


def test_one_class_has_no_curve() -> None:
    assert len(roc_curve(np.ones(4), np.arange(4.0))[0]) == 0


def test_reliability_by_hand() -> None:
    found = reliability(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.8, 0.9]), bins=2)
    assert found.predicted == pytest.approx([0.15, 0.85]) and found.actual == [0.5, 1.0] and found.rows == [2, 2]
    assert found.low[1] == pytest.approx(0.3424, abs=1e-4) and found.high[1] == 1.0  # Wilson, 2 of 2


def test_equal_predictions_share_a_group() -> None:
    labels, predictions = np.arange(10) % 2, np.array([0.3] * 8 + [0.6, 0.7])
    found = reliability(labels.astype(float), predictions, bins=5)
    assert found.rows == [8, 2] and found.predicted == pytest.approx([0.3, 0.65])
    assert reliability(labels.astype(float), np.full(10, 0.3)).rows == [10]


def test_groups_are_about_equal() -> None:
    labels, predictions = drawn_rows(ties=False)
    found = reliability(labels, predictions)
    assert found.rows == [50] * 10 and sum(a * n for a, n in zip(found.actual, found.rows, strict=True)) == labels.sum()


def test_a_row_of_charts_per_task(tmp_path: Path) -> None:
    record = read_run(make_ranking_run(tmp_path / "run"))
    section, rows = ranking_section(record), record.rows()
    assert section is not None and rows is not None
    read = PageReader(section.body)
    assert [svg.attrib["aria-label"] for svg in read.svgs] == ["Calibration", "ROC curve", "Predictions by label"] * 2
    assert read.headings == ["click", "buy"]
    auc = roc_auc_score(rows["label/click"].to_numpy(), rows["prediction/click"].to_numpy())
    assert f"mmoe, AUC {auc:.4f}" in read.text
    shares = [float(spot["data-y"]) for spot in shapes(read.svgs[2], "spot")]
    assert sum(shares) == pytest.approx(2, abs=0.01)  # of each label all


def test_a_regression_has_no_roc_curve(tmp_path: Path) -> None:
    import polars as pl

    folder = make_run(tmp_path / "run")
    values = np.linspace(0, 5, 200)
    pl.DataFrame({"label/rating": values + 0.1, "prediction/rating": values}).write_parquet(
        folder / "test_rows.parquet"
    )
    section = ranking_section(read_run(folder))
    assert section is not None
    assert [svg.attrib["aria-label"] for svg in PageReader(section.body).svgs] == [
        "Calibration",
        "Labels and predictions",
    ]


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    import polars as pl

    folder = make_run(tmp_path / "run")
    columns = {"label/buy": [1.0, 0.0, None, float("nan")] * 10, "prediction/buy": [0.9, 0.2, 0.5, 0.5] * 10}
    pl.DataFrame(columns).write_parquet(folder / "test_rows.parquet")
    section = ranking_section(read_run(folder))
    assert section is not None and "AUC 1.0000" in PageReader(section.body).text


def test_nothing_without_rows(tmp_path: Path) -> None:
    assert ranking_section(read_run(make_run(tmp_path / "run"))) is None


def test_a_baseline_does_not_stand_in_for_predictions_that_are_no_numbers(tmp_path: Path) -> None:
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    folder = make_row_run(tmp_path / "run", {"click": labels}, {"click": labels * np.nan},
                          baselines={"trees": {"click": labels / 2}})  # fmt: skip
    assert ranking_section(read_run(folder)) is None
