from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genrec.contracts import GenrecError
from genrec.metrics import binary, regression
from genrec.report.row_results import RowResults
from genrec.report.sides import read_sides
from tests.report.tested_runs import make_row_run

N = 400
RNG = np.random.default_rng(5)
CLICK = (RNG.random(N) < 0.3).astype(np.float32)
SCORE = np.clip(0.3 * CLICK + RNG.integers(0, 8, N) / 12, 0, 1).astype(np.float32)  # with ties
OTHER = RNG.random(N).astype(np.float32)
GROUPS = RNG.integers(0, 60, N)


def read(*given: Path | str, metrics: tuple[str, ...] = ()) -> RowResults:
    return RowResults(read_sides([str(path) for path in given]), metrics)


def values(found: RowResults, side: int = 0) -> dict[str, float]:
    estimates = found.estimate(resamples=2, seed=0)
    return dict(zip(found.metrics, estimates.values[side].tolist(), strict=True))


def test_metrics_are_those_of_the_trainers(tmp_path: Path) -> None:
    a = make_row_run(tmp_path / "a", {"click": CLICK}, {"click": SCORE}, groups=GROUPS)
    b = make_row_run(tmp_path / "b", {"click": CLICK}, {"click": OTHER}, groups=GROUPS)
    found = values(read(a, b, metrics=("auc", "gauc", "log_loss", "brier")))
    assert found == pytest.approx({
        "auc": binary.auc(SCORE, CLICK), "gauc": binary.gauc(SCORE, CLICK, GROUPS).value,
        "log_loss": binary.log_loss(SCORE, CLICK), "brier": binary.brier(SCORE, CLICK),
    }, rel=1e-5)  # fmt: skip


def test_metrics_of_numbers(tmp_path: Path) -> None:
    stars, guess = 5 * OTHER + 1, 4 * SCORE + 2
    a, b = (make_row_run(tmp_path / name, {"stars": stars}, {"stars": guess}) for name in "ab")
    found = read(a, b, metrics=("rmse", "mae", "mse", "r2"))
    assert values(found) == pytest.approx({
        "rmse": regression.rmse(guess, stars), "mae": regression.mae(guess, stars),
        "mse": regression.mse(guess, stars), "r2": regression.r2(guess, stars),
    }, rel=1e-4)  # fmt: skip
    assert read(a, b).metrics == ["rmse", "mae"]


def test_several_tasks_unknown_labels_and_their_mean(tmp_path: Path) -> None:
    partly = np.where(np.arange(N) % 3 == 0, np.nan, CLICK)
    labels, known = {"click": CLICK, "buy": partly}, np.arange(N) % 3 != 0
    a = make_row_run(tmp_path / "a", labels, {"click": SCORE, "buy": OTHER})
    found = read(a, make_row_run(tmp_path / "b", labels, {"click": OTHER, "buy": SCORE}))
    assert found.metrics == ["auc", "click/auc", "click/log_loss", "buy/auc", "buy/log_loss"]
    got = values(found)
    assert got["buy/auc"] == pytest.approx(roc_auc_score(CLICK[known], OTHER[known]), abs=1e-6)
    assert got["auc"] == pytest.approx((got["click/auc"] + got["buy/auc"]) / 2)
    assert found.per_unit("auc") is None
    losses = found.per_unit("buy/log_loss")
    assert losses is not None
    assert losses.shape == (2, known.sum())
    assert losses[0].mean() == pytest.approx(got["buy/log_loss"])


def test_resamples_are_the_same_for_both_sides(tmp_path: Path) -> None:
    a, b = (make_row_run(tmp_path / name, {"click": CLICK}, {"click": SCORE}, groups=GROUPS) for name in "ab")
    draws = read(a, b).estimate(resamples=30, seed=1).draws
    assert (draws[:, 0] == draws[:, 1]).all()
    assert draws[:, 0].std(axis=0).min() > 0


def test_areas_of_each_group(tmp_path: Path) -> None:
    a, b = (make_row_run(tmp_path / name, {"click": CLICK}, {"click": SCORE}, groups=GROUPS) for name in "ab")
    expected = [
        roc_auc_score(CLICK[group == GROUPS], SCORE[group == GROUPS])
        for group in np.unique(GROUPS)
        if 0 < CLICK[group == GROUPS].mean() < 1
    ]
    found = read(a, b).per_unit("gauc")
    assert found is not None
    assert np.sort(found[0]) == pytest.approx(np.sort(expected))


def test_baselines(tmp_path: Path) -> None:
    a = make_row_run(tmp_path / "a", {"click": CLICK}, {"click": SCORE}, baselines={"trees": {"click": OTHER}})
    found = values(read(a, f"{a}:trees"), side=1)
    assert found["auc"] == pytest.approx(binary.auc(OTHER, CLICK), rel=1e-6)


def test_features_may_differ_but_not_the_rows(tmp_path: Path) -> None:
    a = make_row_run(tmp_path / "a", {"click": CLICK}, {"click": SCORE}, groups=GROUPS)
    same = make_row_run(tmp_path / "b", {"click": CLICK}, {"click": OTHER}, groups=GROUPS + 7, fingerprint="d2")
    assert read(a, same).size == N
    flipped = make_row_run(tmp_path / "c", {"click": 1 - CLICK}, {"click": OTHER}, groups=GROUPS)
    with pytest.raises(GenrecError, match="not test the same rows: their labels differ"):
        read(a, flipped)
    fewer = make_row_run(tmp_path / "d", {"click": CLICK[1:]}, {"click": OTHER[1:]}, groups=GROUPS[1:])
    with pytest.raises(GenrecError, match="400 and 399 rows"):
        read(a, fewer)
    regrouped = make_row_run(tmp_path / "e", {"click": CLICK}, {"click": OTHER}, groups=GROUPS[::-1])
    with pytest.raises(GenrecError, match="their groups differ"):
        read(a, regrouped)
    renamed = make_row_run(tmp_path / "f", {"buy": CLICK}, {"buy": OTHER}, groups=GROUPS)
    with pytest.raises(GenrecError, match="predict different labels"):
        read(a, renamed)
