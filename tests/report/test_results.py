from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.report.results import UserResults
from genrec.report.sides import read_sides
from tests.report.run_folders import make_sweep
from tests.report.tested_runs import hits, make_user_run

RECALL = hits(30, 0.4, 0)


def read(*given: Path | str, metrics: tuple[str, ...] = ()) -> UserResults:
    return UserResults(read_sides([str(path) for path in given]), metrics)


def test_users_are_joined_by_their_id(tmp_path: Path) -> None:
    a = make_user_run(tmp_path / "a", RECALL)
    b = make_user_run(tmp_path / "b", RECALL[::-1], users=list(range(29, -1, -1)))
    found = read(a, b)
    assert (found.values[0] == found.values[1]).all()
    assert found.ids == list(range(30))


def test_metrics_are_averaged_over_seeds(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s")
    other = hits(30, 0.5, 9)
    for job, recall in enumerate((RECALL, other)):
        make_user_run(sweep / str(job), recall, seed=job, overrides=[f"seed={job}"])
    found = read(sweep, make_user_run(tmp_path / "a", RECALL))
    place = found.metrics.index("recall@10")
    assert found.values[0, :, place] == pytest.approx((RECALL + other) / 2)
    assert found.seed_means[0][:, place] == pytest.approx([RECALL.mean(), other.mean()])


def test_baselines_have_columns_of_their_own(tmp_path: Path) -> None:
    a = make_user_run(tmp_path / "a", RECALL, baselines={"item_knn": 1 - RECALL})
    found = read(a, f"{a}:item_knn")
    assert found.metrics == ["recall@10", "ndcg@10"]
    assert found.values[1, :, 0] == pytest.approx(1 - RECALL)


def test_estimates_are_means_and_their_resamples(tmp_path: Path) -> None:
    found = read(make_user_run(tmp_path / "a", RECALL), make_user_run(tmp_path / "b", 1 - RECALL))
    estimates = found.estimate(resamples=400, seed=0)
    assert estimates.values[:, 0] == pytest.approx([RECALL.mean(), 1 - RECALL.mean()])
    assert estimates.draws.shape == (400, 2, 2)
    assert estimates.draws[:, 0, 0] + estimates.draws[:, 1, 0] == pytest.approx(np.ones(400))  # the same users
    chosen = found.estimate(resamples=10, seed=0, chosen=RECALL == 1)
    assert chosen.values[:, 0] == pytest.approx([1, 0])


def test_users_without_a_value_somewhere_are_left_out_everywhere(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, RECALL) for name in "ab")
    unknown = pl.when(pl.col("user_id") == 3).then(None).otherwise(pl.col("ndcg@10")).alias("ndcg@10")
    table = pl.read_parquet(b / "test_users.parquet").with_columns(unknown)
    table.write_parquet(b / "test_users.parquet")
    found = read(a, b)
    assert found.size == 29
    assert 3 not in found.ids


class TestRefusals:
    def test_other_users(self, tmp_path: Path) -> None:
        a = make_user_run(tmp_path / "a", RECALL)
        b = make_user_run(tmp_path / "b", RECALL[:28])
        with pytest.raises(GenrecError, match="not test the same users: 2 only in the first, 0 only in the other"):
            read(a, b)

    def test_fewer_than_two_users(self, tmp_path: Path) -> None:
        a, b = (make_user_run(tmp_path / name, RECALL[:1]) for name in "ab")
        with pytest.raises(GenrecError, match=r"has 1 test users.*at least 2"):
            read(a, b)

    def test_no_such_baseline(self, tmp_path: Path) -> None:
        a = make_user_run(tmp_path / "a", RECALL, baselines={"item_knn": RECALL})
        with pytest.raises(GenrecError, match=r"no baseline 'itemknn' .*There are item_knn"):
            read(a, f"{a}:itemknn")

    def test_other_k(self, tmp_path: Path) -> None:
        a, b = (make_user_run(tmp_path / name, RECALL) for name in "ab")
        table = pl.read_parquet(b / "test_users.parquet")
        table.rename({"recall@10": "recall@5", "ndcg@10": "ndcg@5"}).write_parquet(b / "test_users.parquet")
        with pytest.raises(GenrecError, match=r"no metric in common.*k_values=\[10\].*Run one of them again"):
            read(a, b)
        table.rename({"ndcg@10": "ndcg@5"}).write_parquet(b / "test_users.parquet")
        assert read(a, b).metrics == ["recall@10"]  # what both have can be compared
        with pytest.raises(GenrecError, match=r"b has no ndcg@10 .*k_values=\[10\].*In common are recall@10"):
            read(a, b, metrics=("ndcg@10",))

    def test_an_unknown_metric(self, tmp_path: Path) -> None:
        a, b = (make_user_run(tmp_path / name, RECALL) for name in "ab")
        with pytest.raises(GenrecError, match=r"no recall@7 .*In common are recall@10, ndcg@10"):
            read(a, b, metrics=("recall@7",))


def test_metrics_in_the_order_asked_for(tmp_path: Path) -> None:
    a, b = (make_user_run(tmp_path / name, RECALL) for name in "ab")
    assert read(a, b, metrics=("ndcg@10", "recall@10")).metrics == ["ndcg@10", "recall@10"]
