"""Metrics of predicted values: by hand, against scikit-learn, batch by batch, and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from genrec.contracts import GenrecError
from genrec.metrics.regression import METRICS, RegressionAccumulator, mae, mse, r2, rmse

SEEDS = range(5)


def rows(seed: int, size: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Spends with many zeros, and predictions that lie near them."""
    rng = np.random.default_rng(seed)
    labels = rng.lognormal(3, 1, size) * (rng.random(size) < 0.4)
    return 0.5 * labels + rng.normal(5, 10, size), labels


# -- known answers


def test_by_hand() -> None:
    predicted, labels = np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 1.0])
    # Errors 0, -2 and 5; labels lie -1, 2 and -1 around their mean of 2.
    assert mse(predicted, labels) == pytest.approx(29 / 3)
    assert rmse(predicted, labels) == pytest.approx((29 / 3) ** 0.5)
    assert mae(predicted, labels) == pytest.approx(7 / 3)
    assert r2(predicted, labels) == pytest.approx(1 - 29 / 6)


def test_exact_and_constant_predictions() -> None:
    _, labels = rows(0)
    assert (mse(labels, labels), rmse(labels, labels), mae(labels, labels), r2(labels, labels)) == (0, 0, 0, 1)
    assert r2(np.full(len(labels), labels.mean()), labels) == pytest.approx(0, abs=1e-12)


def test_whole_numbers_do_not_overflow() -> None:
    predicted, labels = np.array([200, 0], dtype=np.uint8), np.array([0, 200], dtype=np.uint8)
    assert mse(predicted, labels) == 40_000 and mae(predicted, labels) == 200


# -- against references


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_scikit_learn(seed: int) -> None:
    predicted, labels = rows(seed)
    assert mse(predicted, labels) == pytest.approx(mean_squared_error(labels, predicted), rel=1e-12)
    assert rmse(predicted, labels) == pytest.approx(mean_squared_error(labels, predicted) ** 0.5, rel=1e-12)
    assert mae(predicted, labels) == pytest.approx(mean_absolute_error(labels, predicted), rel=1e-12)
    assert r2(predicted, labels) == pytest.approx(r2_score(labels, predicted), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_equal_arrays(dtype: torch.dtype) -> None:
    predicted, labels = rows(3)
    given = torch.tensor(predicted, dtype=dtype, requires_grad=True)
    same, truth = given.detach().double().numpy(), torch.tensor(labels)
    for metric in (mse, rmse, mae, r2):
        assert metric(given, truth) == metric(same, labels)


# -- undefined values


def test_labels_all_alike_have_no_r2() -> None:
    labels = np.full(3, 0.1)  # whose variance comes out above 0
    assert r2(np.array([0.0, 0.1, 0.2]), labels) is None
    accumulator = RegressionAccumulator()
    accumulator.update(np.array([0.0, 0.1, 0.2]), labels)
    assert list(accumulator.compute()) == ["mse", "rmse", "mae"]
    assert r2(np.array([1.0]), np.array([2.0])) is None


def test_no_rows() -> None:
    empty = np.zeros(0)
    assert mse(empty, empty) is rmse(empty, empty) is mae(empty, empty) is r2(empty, empty) is None
    accumulator = RegressionAccumulator()
    assert accumulator.compute() == {}
    accumulator.update(empty, empty)
    assert accumulator.compute() == {}


# -- the accumulator


@pytest.mark.parametrize("batch_size", [1, 7, 128, 300])
def test_batches_do_not_change_the_result(batch_size: int) -> None:
    predicted, labels = rows(2)
    accumulator = RegressionAccumulator()
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        accumulator.update(torch.tensor(predicted[part]), labels[part])
        if start == 0:
            accumulator.compute()
    expected = {metric.__name__: metric(predicted, labels) for metric in (mse, rmse, mae, r2)}
    assert accumulator.compute() == accumulator.compute() == expected
    assert tuple(accumulator.compute()) == METRICS
    assert all(type(value) is float for value in accumulator.compute().values())


def test_the_caller_may_reuse_its_buffers() -> None:
    predicted, labels = np.array([1.0, 2.0]), torch.tensor([1.0, 4.0], dtype=torch.float64)
    accumulator = RegressionAccumulator()
    accumulator.update(predicted, labels)
    predicted[:], labels[1] = 9.0, 9.0
    assert accumulator.compute()["mse"] == 2


# -- wrong input


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0.5, 0.5, 0.5], [0, 1], r"equal length .*\(3,\).*\(2,\)"),
        ([[0.5], [0.5]], [[0], [1]], r"equal length .*\(2, 1\)"),
        ([0.5, 0.5], [0, np.nan], "labels must be finite numbers, got nan at position 1"),
        ([np.nan, 0.5], [0, 1], "predictions must be finite numbers, got nan at position 0"),
        ([0.5, np.inf], [0, 1], r"got inf at position 1 \(1 such in all\); look for a diverged model"),
        ([0.5, 0.5], ["much", "little"], "labels must be numbers"),
    ],
)
def test_wrong_input_is_refused(predicted: list, labels: list, message: str) -> None:
    accumulator = RegressionAccumulator()
    for function in (mse, rmse, mae, r2, accumulator.update):
        with pytest.raises(GenrecError, match=message):
            function(np.array(predicted), np.array(labels))
    assert accumulator.compute() == {}
