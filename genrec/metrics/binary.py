"""Metrics of predicted probabilities of a binary label, for models of clicks; what is undefined is None, never nan.

B impressions, each with a score or probability p, a label y of 0 or 1 and, for GAUC, the user who saw it.

    auc                 P(score of a positive > score of a negative), ties counted half
    gauc                AUC of each user, weighted by the user's impressions (Zhou et al., 2018)
    log_loss            -mean(y ln p + (1 - y) ln(1 - p)), nats
    calibration         sum of p / sum of y: above 1 the model promises too many clicks (He et al., 2014)
    ece                 expected calibration error over bins of equal mass (Guo et al., 2017; Nixon et al., 2019)
    normalised_entropy  log_loss / entropy of the base rate: below 1 beats a constant (He et al., 2014, eq. 1)
    brier               mean((p - y)^2) (Brier, 1950)

Everything is computed in float64. Mistakes in the input raise ``GenrecError``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from genrec.contracts import GenrecError

EPSILON = 1e-7  # the log-loss clips probabilities to EPSILON..1 - EPSILON: one impression costs at most 16.1 nats
METRICS = ("auc", "gauc", "log_loss", "calibration", "ece", "normalised_entropy", "brier")

Vector: TypeAlias = "np.ndarray[Any, Any] | Tensor"


class Gauc(NamedTuple):
    """``value`` in 0..1, None where no user has both classes; ``one_class_users``: the share of users left out."""

    value: float | None
    one_class_users: float


class Calibration(NamedTuple):
    """``ratio`` of predicted to observed positives, None without a positive; ``ece`` in 0..1, None without rows."""

    ratio: float | None
    ece: float | None


def auc(scores: Vector, labels: Vector) -> float | None:
    """Area under the ROC curve, by exact counts of ordered pairs; None where only one class exists.

    ``scores`` (B,) on any scale, higher is likelier; ``labels`` (B,) of 0 and 1.
    """
    ranked, truth = _scores(scores), _labels(labels)
    _check_lengths(scores=ranked, labels=truth)
    areas = _areas(ranked, truth, np.zeros(len(ranked), dtype=np.int64), num_groups=1)
    return None if np.isnan(areas[0]) else float(areas[0])


def gauc(scores: Vector, labels: Vector, users: Vector) -> Gauc:
    """Mean AUC over users, weighted by their impressions; users with one class count in neither sum.

    ``scores`` (B,) on any scale, ``labels`` (B,) of 0 and 1, ``users`` (B,) ids in any order.
    Source: Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018 (its metric).
    """
    ranked, truth, owners = _scores(scores), _labels(labels), _users(users)
    _check_lengths(scores=ranked, labels=truth, users=owners)
    _, groups, impressions = np.unique(owners, return_inverse=True, return_counts=True)
    num_users = len(impressions)
    if num_users == 0:
        return Gauc(None, 0.0)
    areas = _areas(ranked, truth, groups, num_groups=num_users)
    scored = ~np.isnan(areas)
    left_out = float(1 - scored.mean())
    if not scored.any():
        return Gauc(None, left_out)
    return Gauc(float(np.average(areas[scored], weights=impressions[scored])), left_out)


def log_loss(probabilities: Vector, labels: Vector) -> float | None:
    """Mean negative log-likelihood in nats, finite at 0 and 1 by clipping at ``EPSILON``; None without rows.

    ``probabilities`` (B,) in 0..1, ``labels`` (B,) of 0 and 1.
    """
    predicted, truth = _pair(probabilities, labels)
    if not len(truth):
        return None
    predicted = predicted.clip(EPSILON, 1 - EPSILON)
    return float(-np.where(truth, np.log(predicted), np.log1p(-predicted)).mean())


def calibration(probabilities: Vector, labels: Vector, bins: int = 10) -> Calibration:
    """How far predicted and observed frequencies lie apart: over all rows, and within bins of equal mass.

    ``probabilities`` (B,) in 0..1, ``labels`` (B,) of 0 and 1. Rows are binned by the rank of their probability; equal
    probabilities share the bin of their middle rank, so the order of the rows does not matter.
    Sources: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014 (ratio); Nixon et al.,
    Measuring Calibration in Deep Learning, 2019 (bins of equal mass).
    """
    if bins < 1:
        raise GenrecError(f"bins must be a whole number from 1 up, got {bins}; try 10.")
    predicted, truth = _pair(probabilities, labels)
    if not len(truth):
        return Calibration(None, None)
    num_positive = np.count_nonzero(truth)
    _, runs, sizes = np.unique(predicted, return_inverse=True, return_counts=True)
    stops = sizes.cumsum()
    bin_of_run = bins * (2 * stops - sizes) // (2 * len(truth))
    gaps = np.bincount(bin_of_run[runs], weights=predicted - truth)
    ratio = float(predicted.sum() / num_positive) if num_positive else None
    return Calibration(ratio, float(np.abs(gaps).sum() / len(truth)))


def normalised_entropy(probabilities: Vector, labels: Vector) -> float | None:
    """Log-loss over that of always predicting the mean of ``labels``; None where only one class exists.

    ``probabilities`` (B,) in 0..1, ``labels`` (B,) of 0 and 1. Source: He et al., ADKDD 2014, eq. 1.
    """
    loss, truth = log_loss(probabilities, labels), _labels(labels)
    if loss is None or truth.all() or not truth.any():
        return None
    rate = truth.mean()
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def brier(probabilities: Vector, labels: Vector) -> float | None:
    """Mean squared difference of ``probabilities`` (B,) in 0..1 and ``labels`` (B,) of 0 and 1; None without rows."""
    predicted, truth = _pair(probabilities, labels)
    return float(np.square(predicted - truth).mean()) if len(truth) else None


class BinaryAccumulator:
    """Metrics of all impressions together, gathered batch by batch: AUC is no mean over batches.

    Keeps 9 bytes per impression, and its user id where users are given.
    """

    def __init__(self, *, bins: int = 10) -> None:
        if bins < 1:
            raise GenrecError(f"bins must be a whole number from 1 up, got {bins}; try 10.")
        self.bins = bins
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._users: list[np.ndarray] = []

    def update(self, scores: Vector, labels: Vector, users: Vector | None = None) -> None:
        """Adds a batch: ``scores`` (B,) probabilities in 0..1, ``labels`` (B,) of 0 and 1, ``users`` (B,) ids.

        Users come with every batch or with none.
        """
        predicted, truth = _pair(scores, labels)
        owners = None if users is None else _users(users)
        if owners is not None:
            _check_lengths(scores=predicted, users=owners)
        if self._scores and (owners is None) == bool(self._users):
            given, before = ("none", "some") if owners is None else ("some", "none")
            raise GenrecError(
                f"users must come with every batch or with none, got {given} after batches with {before}."
            )
        self._scores.append(predicted)
        self._labels.append(truth)
        if owners is not None:
            self._users.append(owners)

    @property
    def batches(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """What was added: scores, labels and users of every batch."""
        users = self._users or [None] * len(self._scores)
        return list(zip(self._scores, self._labels, users, strict=True))

    def replace(self, batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]]) -> None:
        """Takes the ``batches`` of several accumulators in place of its own."""
        self._scores, self._labels, self._users = [], [], []
        for scores, labels, users in batches:
            self._scores.append(scores)
            self._labels.append(labels)
            if users is not None:
                self._users.append(users)

    def compute(self) -> dict[str, float]:
        """The metrics by name, in the order of ``METRICS``, without those that are undefined or lack users."""
        if not self._scores:
            return {}
        self._scores, self._labels = [np.concatenate(self._scores)], [np.concatenate(self._labels)]
        self._users = [np.concatenate(self._users)] if self._users else []
        scores, labels = self._scores[0], self._labels[0]
        ratio, ece = calibration(scores, labels, self.bins)
        values = {
            "auc": auc(scores, labels),
            "gauc": gauc(scores, labels, self._users[0]).value if self._users else None,
            "log_loss": log_loss(scores, labels),
            "calibration": ratio,
            "ece": ece,
            "normalised_entropy": normalised_entropy(scores, labels),
            "brier": brier(scores, labels),
        }
        return {name: value for name in METRICS if (value := values[name]) is not None}


def _areas(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """AUC within each of the groups 0..num_groups - 1: (num_groups,) float64, nan where a class is missing.

    Counts twice the won pairs in whole numbers: a positive wins 2 over each negative below it and 1 over one beside it.
    """
    order = np.lexsort((scores, groups)) if num_groups > 1 else np.argsort(scores)
    scores, labels, groups = scores[order], labels[order], groups[order]
    positives = np.bincount(groups[labels], minlength=num_groups)
    negatives = np.bincount(groups[~labels], minlength=num_groups)
    areas = np.full(num_groups, np.nan)
    if not len(scores):
        return areas
    is_start = np.ones(len(scores), dtype=bool)
    is_start[1:] = (scores[1:] != scores[:-1]) | (groups[1:] != groups[:-1])
    starts = np.flatnonzero(is_start)  # one for each run of equal scores within a group
    group_of_run = groups[starts]
    run_positives = np.add.reduceat(labels.astype(np.int64), starts)
    run_negatives = np.diff(starts, append=len(scores)) - run_positives
    below = run_negatives.cumsum() - run_negatives - (negatives.cumsum() - negatives)[group_of_run]
    first_run = np.searchsorted(group_of_run, np.arange(num_groups))  # every group has a run
    won_twice = np.add.reduceat(run_positives * (2 * below + run_negatives), first_run)
    np.divide(won_twice, 2 * positives * negatives, out=areas, where=(positives > 0) & (negatives > 0))
    return areas


def _pair(probabilities: Vector, labels: Vector) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = _scores(probabilities, "probabilities"), _labels(labels)
    _check_lengths(probabilities=predicted, labels=truth)
    outside = np.flatnonzero((predicted < 0) | (predicted > 1))
    if len(outside):
        raise GenrecError(
            f"probabilities must lie in 0..1, got {predicted[outside[0]]} at position {outside[0]} "
            f"({len(outside)} outside); pass logits through a sigmoid first."
        )
    return predicted, truth


def _scores(values: Vector, name: str = "scores") -> np.ndarray:
    numbers = numbers_of(values, name)
    missing = np.flatnonzero(np.isnan(numbers))
    if len(missing):
        raise GenrecError(
            f"{name} must be numbers, got NaN at position {missing[0]} ({len(missing)} in all); "
            "look for a diverged model or a missing feature."
        )
    return numbers


def _labels(values: Vector) -> np.ndarray:
    numbers = numbers_of(values, "labels")
    wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
    if len(wrong):
        raise GenrecError(
            f"labels must be 0 or 1, got {numbers[wrong[0]]} at position {wrong[0]} ({len(wrong)} such in all); "
            "turn ratings into labels with a threshold first."
        )
    return numbers == 1


def _users(values: Vector) -> np.ndarray:
    users = np.array(values.detach().cpu().numpy() if isinstance(values, Tensor) else values)
    if users.dtype.kind not in "iuSU":
        raise GenrecError(f"users must be whole-number or text ids, got {users.dtype}; pass one id per impression.")
    return users


def numbers_of(values: Vector, name: str) -> np.ndarray:
    """A float64 copy, so that a caller may reuse its buffer."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise GenrecError(
            f"{name} must be numbers, got {array.dtype}; pass a numpy array or a torch tensor of numbers."
        )
    return array.astype(np.float64)


def _check_lengths(**vectors: np.ndarray) -> None:
    shapes = {name: vector.shape for name, vector in vectors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise GenrecError(
            f"Expected vectors of one equal length (B,), got {given}; flatten them or select the same rows."
        )
