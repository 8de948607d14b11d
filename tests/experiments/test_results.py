from __future__ import annotations

import pytest

from experiments.results import (
    ITEMS,
    LABELS,
    Row,
    add,
    figure,
    groups_of,
    panels_of,
    read_results,
    table,
    with_spread,
    write_results,
)


def item_row(model: str, seed: int | str, masked: bool, recall: float, **changes) -> Row:
    metrics = {"recall@5": ".1", "ndcg@5": ".1", "recall@10": f"{recall:.4f}", "ndcg@10": ".2"}
    facts = {"data": "shop", "model": model, "seed": seed, "filter_seen": masked, "train_minutes": "2"}
    return {**facts, **metrics, **changes}


def label_row(name: str, model: str, seed: int, auc: float, label: str = "click", **changes) -> Row:
    return {
        **{"table": name, "data": "shop", "label": label, "model": model, "seed": seed},
        **{"auc": f"{auc:.4f}", "log_loss": "0.5000", "calibration": "1.0000", "train_seconds": "2.0"},
        **changes,
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_result_is_replaced_by_a_newer_one_of_the_same_run(tmp_path):
    path = tmp_path / "results.csv"
    add([item_row("a", 1, False, 0.1), item_row("a", 2, False, 0.2)], path, ITEMS)
    add([item_row("a", 2, False, 0.3), item_row("a", 2, True, 0.4)], path, ITEMS)
    found = [(each["seed"], each["filter_seen"], each["recall@10"]) for each in read_results(path)]
    assert found == [("1", "False", "0.1000"), ("2", "False", "0.3000"), ("2", "True", "0.4000")]


def test_a_result_of_another_table_or_label_is_another(tmp_path):
    path = tmp_path / "results.csv"
    add([label_row("ranking", "fm", 1, 0.6), label_row("ranking", "fm", 2, 0.7)], path, LABELS)
    add([label_row("ranking", "fm", 2, 0.8), label_row("multitask", "fm", 2, 0.9)], path, LABELS)
    add([label_row("ranking", "fm", 2, 0.5, label="buy")], path, LABELS)
    found = [(each["table"], each["label"], each["seed"], each["auc"]) for each in read_results(path)]
    assert found == [
        ("multitask", "click", "2", "0.9000"),
        ("ranking", "buy", "2", "0.5000"),
        ("ranking", "click", "1", "0.6000"),
        ("ranking", "click", "2", "0.8000"),
    ]


def test_a_column_that_nothing_fills_is_left_out_and_comes_back(tmp_path):
    path = tmp_path / "results.csv"
    write_results([item_row("a", 1, False, 0.1)], path, ITEMS)
    assert "coverage@10" not in path.read_text()
    add([item_row("b", 1, False, 0.1, **{"coverage@10": "0.5000"})], path, ITEMS)
    assert [row["coverage@10"] for row in read_results(path)] == ["", "0.5000"]


def test_table_has_mean_and_sample_deviation_and_the_best_first():
    rows = [
        item_row("weak", "", False, 0.05, train_minutes=""),
        item_row("strong", 1, False, 0.1),
        item_row("strong", 2, False, 0.2),
    ]
    first, second = table(rows, ITEMS).splitlines()[2:]
    assert cells(first)[1:3] == ["strong", "kept"] and cells(second)[1] == "weak"
    assert ".1500 ± .0707" in first  # sqrt((.05^2 + .05^2) / 1)
    assert cells(first)[-2:] == ["2", "2.0"] and cells(second)[-2:] == ["", ""]


def test_table_of_labels_has_its_own_columns():
    rows = [label_row("ranking", "fm", 1, 0.6), label_row("ranking", "fm", 2, 0.7, train_seconds="")]
    head, _, line = table(rows, LABELS).splitlines()
    assert cells(head) == ["data", "label", "model", "AUC", "log-loss", "calibration", "seeds", "seconds"]
    assert cells(line)[3:] == [".6500 ± .0707", ".5000 ± .0000", "1.0000 ± .0000", "2", "2"]


def test_published_rows_stand_among_ours_with_their_source():
    told = {
        "data": "shop",
        "model": "THEM",
        "seed": "",
        "filter_seen": "False",
        "recall@10": "0.15",
        "source": "a paper",
    }
    unknown = {**told, "model": "WHO", "filter_seen": ""}
    rows = [item_row("strong", 1, False, 0.2), item_row("weak", 1, False, 0.1), item_row("weak", 1, True, 0.1)]
    lines = [cells(line) for line in table(rows, ITEMS, [told, unknown]).splitlines()[2:]]
    assert [line[1:3] for line in lines] == [
        ["strong", "kept"],
        ["THEM", "kept"],
        ["weak", "kept"],
        ["weak", "masked"],
        ["WHO", "not said"],
    ]
    assert [line[-1] for line in lines] == ["", "a paper", "", "", "a paper"]
    assert lines[1][5] == ".1500" and lines[1][3] == ""


def test_masked_and_kept_are_compared_apart():
    panels = panels_of([item_row("a", 1, False, 0.1), item_row("a", 1, True, 0.2)], ITEMS)
    assert list(panels) == [("shop", "False"), ("shop", "True")]


def test_groups_know_their_seeds_mean_and_spread():
    rows = [item_row("a", 1, False, 0.1), item_row("a", 3, False, 0.4), item_row("item_knn", "", False, 0.3)]
    first, second = groups_of(rows, ITEMS).values()
    assert first.seeds == ("1", "3") and second.seeds == ()
    assert first.mean("recall@10") == pytest.approx(0.25)
    assert first.spread("recall@10") == pytest.approx(0.3 / 2**0.5)
    assert second.spread("recall@10") is None and first.mean("coverage@10") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05, ".0500"), (-0.00123, "-.0012"), (-0.00004, ".0000"), (1.0154, "1.0154"), (-1.5, "-1.5000"), (None, "")],
)
def test_figures_have_four_digits_and_no_zero_before_the_point(value, text):
    assert figure(value) == text


def test_a_single_value_has_no_spread():
    assert with_spread(0.5, None) == ".5000" and with_spread(0.5, 0.01) == ".5000 ± .0100"
