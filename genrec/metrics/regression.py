"""Metrics of predicted values (spend, watch time, a rating); what is undefined is None, never nan.

B rows, each with a prediction p and a label y in the same unit.

    mse   mean((p - y)^2), in the squared unit of the label
    rmse  its root, in the unit of the label
    mae   mean(|p - y|), in the unit of the label
    r2    1 - mse / variance of y: 1 is exact, 0 as good as the mean label, below 0 worse than it

Everything is computed in float64, over rows and never over batches. Rows whose label is not known are left out by the
caller; mistakes in the input raise ``GenrecError``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from genrec.contracts import GenrecError
from genrec.metrics.binary import Vector, numbers_of

METRICS = ("mse", "rmse", "mae", "r2")


def mse(predicted: Vector, labels: Vector) -> float | None:
    """Mean squared error of ``predicted`` (B,) and ``labels`` (B,); None without rows."""
    values, truth = _pair(predicted, labels)
    return float(np.square(values - truth).mean()) if len(truth) else None


def rmse(predicted: Vector, labels: Vector) -> float | None:
    """Root of the mean squared error of ``predicted`` (B,) and ``labels`` (B,); None without rows."""
    squared = mse(predicted, labels)
    return None if squared is None else float(np.sqrt(squared))


def mae(predicted: Vector, labels: Vector) -> float | None:
    """Mean absolute error of ``predicted`` (B,) and ``labels`` (B,); None without rows."""
    values, truth = _pair(predicted, labels)
    return float(np.abs(values - truth).mean()) if len(truth) else None


def r2(predicted: Vector, labels: Vector) -> float | None:
    """Coefficient of determination of ``predicted`` (B,) and ``labels`` (B,); None where all labels are alike."""
    values, truth = _pair(predicted, labels)
    if not len(truth) or truth.min() == truth.max():  # a variance of 0 may be rounded to something above it
        return None
    return float(1 - np.square(values - truth).mean() / truth.var())


class RegressionAccumulator:
    """Metrics of all rows together, gathered batch by batch: the last batch is smaller and r2 is no mean over batches.

    Keeps 16 bytes per row.
    """

    def __init__(self) -> None:
        self._predicted: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def update(self, predicted: Vector, labels: Vector) -> None:
        """Adds a batch: ``predicted`` (B,) and ``labels`` (B,) in one unit."""
        values, truth = _pair(predicted, labels)
        self._predicted.append(values)
        self._labels.append(truth)

    @property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What was added: predictions and labels of every batch."""
        return list(zip(self._predicted, self._labels, strict=True))

    def replace(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Takes the ``batches`` of several accumulators in place of its own."""
        taken = list(batches)
        self._predicted, self._labels = [values for values, _ in taken], [labels for _, labels in taken]

    def compute(self) -> dict[str, float]:
        """The metrics by name, in the order of ``METRICS``, without those that are undefined."""
        if not self._labels:
            return {}
        self._predicted, self._labels = [np.concatenate(self._predicted)], [np.concatenate(self._labels)]
        values = [metric(self._predicted[0], self._labels[0]) for metric in (mse, rmse, mae, r2)]
        return {name: value for name, value in zip(METRICS, values, strict=True) if value is not None}


def _pair(predicted: Vector, labels: Vector) -> tuple[np.ndarray, np.ndarray]:
    values = _numbers(predicted, "predictions", "look for a diverged model or a missing feature")
    truth = _numbers(labels, "labels", "leave out the rows whose label is not known")
    if values.shape != truth.shape or values.ndim != 1:
        raise GenrecError(
            f"Expected vectors of one equal length (B,), got predictions {values.shape}, labels {truth.shape}; flatten "
            "them or select the same rows."
        )
    return values, truth


def _numbers(values: Vector, name: str, advice: str) -> np.ndarray:
    """A finite float64 copy, so that a caller may reuse its buffer."""
    numbers = numbers_of(values, name)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise GenrecError(
            f"{name} must be finite numbers, got {numbers.flat[wrong[0]]} at position {wrong[0]} ({len(wrong)} such in "
            f"all); {advice}."
        )
    return numbers
