"""Published numbers: those of the sources, and only where the protocol is that of the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genrec.report.published import published_for


@pytest.mark.parametrize(
    ("model", "data", "metrics"),
    [
        ("TIGER", "amazon_beauty", {"recall@5": 0.0454, "ndcg@5": 0.0321, "recall@10": 0.0648, "ndcg@10": 0.0384}),
        ("RPG", "amazon_toys", {"recall@5": 0.0592, "ndcg@5": 0.0401, "recall@10": 0.0869, "ndcg@10": 0.0490}),
        ("eSASRec", "amazon_sports", {"recall@10": 0.0560, "ndcg@10": 0.0323}),
    ],
)
def test_numbers_of_the_papers(model: str, data: str, metrics: dict[str, float]) -> None:
    (row,) = [row for row in published_for(data) if row.model == model]
    assert row.metrics == metrics


def test_rows_have_sources_and_are_ordered() -> None:
    for data in ("amazon_beauty", "amazon_sports", "amazon_toys"):
        rows = published_for(data)
        recalls = [row.metrics["recall@10"] for row in rows]
        assert len(rows) >= 7 and recalls == sorted(recalls, reverse=True)
        assert all(row.source and row.metrics["ndcg@10"] < row.metrics["recall@10"] for row in rows)


def test_other_data_and_other_splits_have_none() -> None:
    assert published_for("synthetic") == []
    assert published_for("amazon_beauty", "global_time") == []


def test_the_readme_says_the_same(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    (tiger,) = [row for row in published_for("amazon_beauty") if row.model == "TIGER"]
    line = re.search(r"TIGER as published.*\| (\.\d+) \| (\.\d+) \|", text)
    assert line and [float(number) for number in line.groups()] == [
        tiger.metrics["recall@10"],
        tiger.metrics["ndcg@10"],
    ]
