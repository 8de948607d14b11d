from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genrec.tables import (
    baseline_rows,
    items_table,
    log_table,
    metric_columns,
    results_table,
    short_names,
    to_text,
)

FINAL = {
    "test/loss": 1.0,
    "test/ndcg@10": 0.25,
    "test/recall@5": 0.2,
    "test/recall@10": 0.435,
    "val/recall@10": 0.9,
    "baseline/popularity/test/recall@10": 0.05,
    "baseline/popularity/val/recall@10": 0.77,
    "baseline/item_knn/test/recall@10": 0.125,
    "ceiling/test/recall@10": 0.5,
}


def lines(final: dict[str, float]) -> list[list[str]]:
    text = to_text(results_table(final, name="tiger", data="synthetic"), width=120)
    return [line.split() for line in text.splitlines()]


def test_metric_columns_start_with_recall_and_ndcg_of_the_test_part_only() -> None:
    assert metric_columns(FINAL) == ["recall@5", "recall@10", "ndcg@10"]
    assert len(metric_columns({f"test/recall@{k}": 0.0 for k in range(20)})) == 8


def test_baselines_show_their_test_metrics() -> None:
    assert baseline_rows(FINAL) == {"popularity": {"recall@10": 0.05}, "item_knn": {"recall@10": 0.125}}


def test_results_stand_beside_baselines_and_ceiling() -> None:
    rows = lines(FINAL)
    assert ["tiger", "0.2000", "0.4350", "0.2500"] in rows
    assert ["popularity", "-", "0.0500", "-"] in rows
    assert ["item_knn", "-", "0.1250", "-"] in rows
    assert ["ceiling", "-", "0.5000", "-"] in rows
    assert ["tiger", "/", "ceiling", "-", "87", "%", "-"] in rows


def test_a_model_without_baselines_and_ceiling_has_one_row() -> None:
    assert lines({"test/mse": 0.5})[-1] == ["tiger", "0.5000"]
    assert not any("ceiling" in row for row in lines({"test/mse": 0.5}))


def test_log_names_the_folder_and_the_seconds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="genrec.run"):
        log_table(FINAL, name="tiger", data="synthetic", folder=Path("outputs/x"), seconds={"fit": 2.0, "total": 3.25})
    assert "0.4350" in caplog.text
    assert "run folder: outputs/x" in caplog.text
    assert "seconds: 3.2 (fit 2.0)" in caplog.text or "seconds: 3.3 (fit 2.0)" in caplog.text


def test_titles_with_brackets_are_printed_as_they_are() -> None:
    table = items_table([{"item_id": 7, "title": "[bold] Rain [/x]"}], title="History [a]")
    text = to_text(table, width=80)
    assert "[bold] Rain [/x]" in text and "History [a]" in text


def test_an_empty_list_is_still_a_table() -> None:
    assert "item_id" in to_text(items_table([], title="nothing"), width=80)


def test_keys_are_shortened_unless_two_would_read_the_same() -> None:
    assert short_names(["optimizer.lr", "seed"]) == ["lr", "seed"]
    assert short_names(["model.dropout", "encoder.dropout", "optimizer.lr"]) == [
        "model.dropout",
        "encoder.dropout",
        "lr",
    ]


def test_labels_of_several_tasks_have_their_columns_and_errors_no_share_of_the_ceiling() -> None:
    names = ("auc", "gauc", "log_loss", "calibration")
    final = {f"test/{task}/{name}": 0.5 for task in ("click", "buy_given_click") for name in (*names, "ece", "brier")}
    final |= {
        "test/auc": 0.5,
        "test/click/auc": 0.65,
        "ceiling/test/click/auc": 0.8,
        "ceiling/test/click/log_loss": 0.3,
    }
    assert metric_columns(final) == ["click/auc", "click/log_loss", "buy_given_click/auc", "buy_given_click/log_loss"]
    text = to_text(results_table(final, name="mmoe", data="shop"), width=100)
    heads, below = text.splitlines()[1:3]
    assert heads.split() == ["click", "click", "buy_given_click", "buy_given_click"]
    assert below.split() == ["model", "auc", "log_loss", "auc", "log_loss"]
    assert text.splitlines()[-1].split() == ["mmoe", "/", "ceiling", "50", "%", "-", "-", "-"]  # above chance
