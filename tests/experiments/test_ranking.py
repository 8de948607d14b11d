from __future__ import annotations

from pathlib import Path

import pytest

from experiments.ranking import __main__ as ranking


def row(table: str, model: str, seed: int, auc: float, label: str = "click", **changes) -> ranking.Row:
    return {
        **{"table": table, "data": "shop", "label": label, "model": model, "seed": seed},
        **{"auc": f"{auc:.4f}", "log_loss": "0.5000", "calibration": "1.0000", "train_seconds": "2.0"},
        **changes,
    }


def test_a_result_is_replaced_by_a_newer_one_of_the_same_run(tmp_path):
    path = tmp_path / "results.csv"
    ranking.add([row("ranking", "fm", 1, 0.6), row("ranking", "fm", 2, 0.7)], path)
    ranking.add([row("ranking", "fm", 2, 0.8), row("multitask", "fm", 2, 0.9)], path)
    found = [(each["table"], each["seed"], each["auc"]) for each in ranking.read_results(path)]
    assert found == [("multitask", "2", "0.9000"), ("ranking", "1", "0.6000"), ("ranking", "2", "0.8000")]


def test_the_table_has_mean_and_sample_deviation_and_the_best_first(tmp_path):
    path = tmp_path / "results.csv"
    ranking.add([row("ranking", "weak", 1, 0.55, train_seconds=""), row("ranking", "fm", 1, 0.6)], path)
    ranking.add([row("ranking", "fm", 2, 0.7), row("multitask", "other", 1, 0.9)], path)
    lines = ranking.table(ranking.read_results(path), "ranking").splitlines()[2:]
    assert [line.split(" | ")[2] for line in lines] == ["fm", "weak"]
    assert "| 0.6500 ± 0.0707 |" in lines[0]  # sqrt((.05^2 + .05^2) / 1)
    assert lines[0].endswith("| 2 | 2 |") and lines[1].endswith("| 1 |  |")


def test_each_table_goes_between_its_markers():
    marks = [f"<!-- {name}: {end} -->" for name in ranking.TABLES for end in ("begin", "end")]
    page = "\n".join(["a", marks[0], "old", marks[1], "b", *marks[2:], "c"])
    text = ranking.with_tables(page, [row("ranking", "fm", 1, 0.6), row("multitask", "mmoe", 1, 0.7)])
    assert "old" not in text and text.startswith("a\n") and text.endswith("\nc")
    first, second = text.split("\nb\n")
    assert "| fm |" in first and "| mmoe |" in second and "| fm |" not in second


def test_the_published_tables_are_those_of_the_results():
    page = (ranking.HERE / "README.md").read_text(encoding="utf-8")
    rows = ranking.read_results(ranking.HERE / "results.csv")
    assert rows and ranking.with_tables(page, rows) == page


def test_a_name_for_two_models_is_refused(capsys):
    with pytest.raises(SystemExit):
        ranking.parse(["run", "--data", "frappe", "--models", "fm", "deepfm", "--as", "both"])
    assert "--as both names one model, and 2 were given" in capsys.readouterr().err


def test_a_run_becomes_a_row_for_each_label_and_is_not_repeated(tmp_path: Path, monkeypatch):
    small = ["data.source.num_rows=1500", "data.source.num_users=30", "hardware.num_threads=1", "trainer.max_epochs=1"]
    folder = ranking.folder_of(tmp_path, "multitask", "synthetic_clicks", "mmoe", 3)
    options = ["trainer=mtl", "data.tasks=[click,buy]", *small]
    ranking.train("mmoe", "synthetic_clicks", 3, folder, options)
    rows = ranking.rows_of(folder, "multitask", "synthetic_clicks", "mmoe", 3)
    assert [each["label"] for each in rows] == ["buy", "buy_given_click", "click"]
    assert all(0 <= float(each["auc"]) <= 1 and each["seed"] == 3 and each["parameters"] > 100 for each in rows)
    monkeypatch.setattr("genrec.pipeline.execute", lambda _: pytest.fail("trained again"))
    assert ranking.train("mmoe", "synthetic_clicks", 3, folder, options) == folder
    single = ranking.folder_of(tmp_path, "ranking", "synthetic_clicks", "base_rate", 1)
    monkeypatch.undo()
    ranking.train("base_rate", "synthetic_clicks", 1, single, small)
    [only] = ranking.rows_of(single, "ranking", "synthetic_clicks", "base_rate", 1)
    assert only["label"] == "click" and only["auc"] == "0.5000" and only["train_seconds"] == ""
