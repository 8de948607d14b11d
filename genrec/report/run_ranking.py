"""Ranking runs: are predicted probabilities right (calibration), and do they order rows (ROC curve, scores by label)?

n rows; labels are 0 or 1 unless a task is a regression. Computed from ``RunRecord.rows``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from genrec.records import RunRecord
from genrec.report.charts import Series, histogram, line_chart
from genrec.report.html import Markup, Section, element, grid, join
from genrec.report.scales import format_number
from genrec.report.segments import mean_interval
from genrec.tables import BASELINE

_LABEL, _PREDICTION = "label/", "prediction/"
_BINS, _CURVE_POINTS, _SCORE_BINS = 10, 120, 30
_MAX_TASKS, _MAX_RIVALS = 6, 3
_WIDTH, _HEIGHT = 380, 300
_CALIBRATION = (
    "Rows in ten groups by what was predicted, with 95 % intervals; on the dashed line predictions are right."
)


def ranking_section(record: RunRecord) -> Section | None:
    """A row of charts per task; None for runs without labelled rows."""
    rows = record.rows()
    if rows is None or not len(rows):
        return None
    tasks = [name.removeprefix(_LABEL) for name in rows.columns if name.startswith(_LABEL)][:_MAX_TASKS]
    parts: list[object] = []
    for task in tasks:
        known = rows.filter(pl.col(_LABEL + task).is_not_null() & ~pl.col(_LABEL + task).is_nan())
        predictions = _predictions(known, task, record.model)
        if not len(known) or not predictions:
            continue
        parts.append(element("h3", task) if len(tasks) > 1 else None)
        parts.append(_charts(known[_LABEL + task].to_numpy().astype(float), predictions))
    return Section("Predictions", join(parts), note=_CALIBRATION) if parts else None


@dataclass(frozen=True)
class Reliability:
    """Groups of rows by prediction: the mean prediction, the mean label and its 95 % interval, and how many rows."""

    predicted: list[float]
    actual: list[float]
    low: list[float]
    high: list[float]
    rows: list[int]


def reliability(labels: np.ndarray, predictions: np.ndarray, bins: int = _BINS) -> Reliability:
    """Rows (n,) in ``bins`` groups of about equally many, in the order of their prediction; equal predictions share a
    group, so there may be fewer."""
    order = np.argsort(predictions, kind="stable")
    labels, predictions = labels[order], predictions[order]
    starts = [len(labels) * part // bins for part in range(bins)]
    starts = sorted({int(np.searchsorted(predictions, predictions[start])) for start in starts if start < len(labels)})
    columns: tuple[list, ...] = ([], [], [], [], [])
    for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
        mean, low, high = mean_interval(pl.Series(labels[start:end]))
        values = (float(predictions[start:end].mean()), mean, low, high, end - start)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Reliability(*columns)


def roc_curve(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates (points,) from (0, 0) to (1, 1), a step for each distinct prediction; empty where
    a class is missing."""
    positive = labels > 0.5
    if positive.all() or not positive.any():
        return np.empty(0), np.empty(0)
    order = np.argsort(-predictions, kind="stable")
    hits, falls = np.cumsum(positive[order]), np.cumsum(~positive[order])
    last = np.append(np.flatnonzero(np.diff(predictions[order])), len(order) - 1)
    return np.append(0.0, falls[last] / falls[-1]), np.append(0.0, hits[last] / hits[-1])


def area(false_rates: np.ndarray, true_rates: np.ndarray) -> float:
    """The area under a ROC curve, which is AUC with ties counted half."""
    return float(np.trapezoid(true_rates, false_rates))


def _predictions(rows: pl.DataFrame, task: str, model: str) -> dict[str, np.ndarray]:
    """Whose predictions there are: the model's, then those of baselines; none where the model's are no numbers."""
    own = _PREDICTION + task
    if own in rows.columns and not np.isfinite(rows[own].to_numpy().astype(float)).all():
        return {}
    found = {model: rows[own].to_numpy().astype(float)} if own in rows.columns else {}
    rivals = [name for name in rows.columns if name.startswith(BASELINE) and name.endswith(f"/{own}")][:_MAX_RIVALS]
    found.update({name.split("/")[1]: rows[name].to_numpy().astype(float) for name in rivals})
    return {
        name: values
        for number, (name, values) in enumerate(found.items())
        if np.isfinite(values).all() and (number == 0 or values.min() < values.max())  # a constant rival says nothing
    }


def _charts(labels: np.ndarray, predictions: dict[str, np.ndarray]) -> Markup:
    binary = bool(np.isin(labels, (0.0, 1.0)).all())
    own = next(iter(predictions.values()))
    calibration = _calibration(labels, predictions, binary=binary)
    if not binary:
        spread = {"actual": labels.tolist(), "predicted": own.tolist()}
        scores = histogram(spread, title="Labels and predictions", share=True, bins=_SCORE_BINS, width=_WIDTH,
                           height=_HEIGHT, x_label="value", y_label="share of rows")  # fmt: skip
        return grid(calibration, scores)
    scores = _scores(labels, own)
    return grid(calibration, _roc(labels, predictions), scores)


def _calibration(labels: np.ndarray, predictions: dict[str, np.ndarray], *, binary: bool) -> Markup:
    series = []
    for number, (name, values) in enumerate(predictions.items()):
        found = reliability(labels, values)
        band = number == 0
        series.append(Series(name, found.predicted, found.actual, low=found.low if band else None,
                             high=found.high if band else None, colour=number))  # fmt: skip
    ends = [value for one in series for value in (*one.x, *(y for y in one.y if y is not None))]
    low, high = (0.0, 1.0) if binary and max(ends) > 0.5 else (0.0 if binary else min(ends), max(ends) * 1.05)
    series.append(Series("right", [low, high], [low, high], dashed=True, colour=5))
    what = "share of positives" if binary else "mean label"
    return line_chart(series, title="Calibration", x_label="predicted", y_label=what, width=_WIDTH, height=_HEIGHT,
                      x_range=(low, high), y_range=(low, high))  # fmt: skip


def _roc(labels: np.ndarray, predictions: dict[str, np.ndarray]) -> Markup | None:
    series = []
    for number, (name, values) in enumerate(predictions.items()):
        false_rates, true_rates = roc_curve(labels, values)
        if len(false_rates) > 2 or (number == 0 and len(false_rates)):
            shown = _thinned(len(false_rates))
            words = f"{name}, AUC {format_number(area(false_rates, true_rates))}"
            series.append(Series(words, false_rates[shown].tolist(), true_rates[shown].tolist(), colour=number))
    if not series:
        return None
    series.append(Series("by chance", [0, 1], [0, 1], dashed=True, colour=5))
    return line_chart(series, title="ROC curve", x_label="false positive rate", y_label="true positive rate",
                      width=_WIDTH, height=_HEIGHT, x_range=(0, 1), y_range=(0, 1))  # fmt: skip


def _thinned(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(int))


def _scores(labels: np.ndarray, values: np.ndarray) -> Markup:
    by_label = {"label 1": values[labels > 0.5], "label 0": values[labels <= 0.5]}
    high = float(values.max())
    edges = np.linspace(0.0 if values.min() >= 0 else values.min(), high if high > 0 else 1.0, _SCORE_BINS + 1)
    counts = {name: np.histogram(row, edges)[0].tolist() for name, row in by_label.items() if len(row)}
    return histogram(counts, edges=edges.tolist(), title="Predictions by label", share=True, x_label="predicted",
                     y_label="share of the rows with this label", width=_WIDTH, height=_HEIGHT)  # fmt: skip
