"""Metrics of click probabilities: by hand, against scikit-learn and plain loops, batch by batch, and wrong input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from genrec.contracts import GenrecError
from genrec.metrics.binary import (
    EPSILON,
    METRICS,
    BinaryAccumulator,
    auc,
    brier,
    calibration,
    gauc,
    log_loss,
    normalised_entropy,
)

SEEDS = range(5)


def impressions(seed: int, size: int = 400, num_users: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of two digits, so many ties; about 7 impressions per user, so some users with one class."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(1, 40, size) / 40
    return probabilities, (rng.random(size) < probabilities**2).astype(int), rng.integers(0, num_users, size) * 7 - 100


def looped_gauc(scores: np.ndarray, labels: np.ndarray, users: np.ndarray) -> tuple[float, float]:
    total, weight, left_out = 0.0, 0, 0
    for user in set(users.tolist()):
        own = users == user
        if len(set(labels[own].tolist())) < 2:
            left_out += 1
            continue
        total += float(roc_auc_score(labels[own], scores[own])) * int(own.sum())
        weight += int(own.sum())
    return total / weight, left_out / len(set(users.tolist()))


# -- known answers


def test_auc_by_hand() -> None:
    # Positives 3 and 2 against negatives 2 and 1: won, won, tied, won.
    assert auc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0])) == 3.5 / 4
    assert auc(np.array([-5.0, 8.0]), np.array([0, 1])) == 1
    assert auc(np.array([-5.0, 8.0]), np.array([1, 0])) == 0
    assert auc(np.ones(6), np.array([0, 1, 0, 0, 1, 0])) == 1 / 2
    assert auc(np.array([-np.inf, 0.0, np.inf]), np.array([0, 1, 1])) == 1


def test_gauc_by_hand() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.3, 0.7])
    labels = np.array([1, 0, 1, 0, 0, 1, 1])
    users = np.array([4, 2, 2, 4, 2, 9, 4])
    # User 4 wins both pairs (3 impressions), user 2 wins both (3), user 9 has no negative.
    assert gauc(scores, labels, users) == (1.0, pytest.approx(1 / 3))
    labels[4] = 1  # user 2: 0.5 and 0.2 against 0.1, both won
    labels[6], scores[6] = 0, 0.9  # user 4: 0.9 against 0.5 won, against 0.9 tied
    assert gauc(scores, labels, users).value == pytest.approx((3 * 1 + 3 * (1.5 / 2)) / 6)


def test_gauc_weighs_users_by_impressions() -> None:
    scores, labels = np.array([0.2, 0.8, 0.9, 0.1, 0.3, 0.4]), np.array([0, 1, 0, 1, 1, 1])
    users = np.array([0, 0, 1, 1, 1, 1])
    assert gauc(scores, labels, users).value == (2 * 1 + 4 * 0) / 6
    assert gauc(scores, labels, np.array(["b", "b", "a", "a", "a", "a"])).value == (2 * 1 + 4 * 0) / 6


def test_gauc_nan_with_a_one_class_user() -> None:
    scores, labels = np.array([0.2, 0.8, 0.4, 0.6]), np.array([0, 1, 0, 0])
    assert gauc(scores, labels, np.array([0, 0, 1, 1])) == (1.0, 0.5)
    assert gauc(scores, labels, np.array([0, 1, 0, 0])) == (None, 1.0)
    accumulator = BinaryAccumulator()
    accumulator.update(scores, labels, np.array([0, 0, 1, 1]))
    assert accumulator.compute()["gauc"] == 1.0


def test_logloss_nan_at_p_in_0_1() -> None:
    assert log_loss(np.array([0.0, 1.0]), np.array([0, 1])) == pytest.approx(0, abs=2 * EPSILON)
    assert log_loss(np.array([0.0, 1.0]), np.array([1, 0])) == pytest.approx(-math.log(EPSILON))
    assert log_loss(torch.tensor([0.0, 1.0]), torch.tensor([1, 0])) == pytest.approx(-math.log(EPSILON))
    assert log_loss(np.array([0.25, 0.25]), np.array([0, 1])) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_calibration_by_hand() -> None:
    probabilities, labels = np.array([0.8, 0.1, 0.6, 0.3]), np.array([1, 0, 0, 1])
    # Two bins: 0.1 and 0.3 with one positive, 0.6 and 0.8 with one positive.
    assert calibration(probabilities, labels, bins=2) == pytest.approx((1.8 / 2, (0.6 + 0.4) / 4))
    assert calibration(probabilities, labels, bins=1) == pytest.approx((1.8 / 2, 0.2 / 4))
    assert calibration(probabilities, labels, bins=4).ece == pytest.approx((0.2 + 0.1 + 0.6 + 0.7) / 4)
    assert calibration(probabilities, labels, bins=1000).ece == pytest.approx((0.2 + 0.1 + 0.6 + 0.7) / 4)


def test_bins_have_equal_mass() -> None:
    probabilities, labels, _ = impressions(0, size=200)
    probabilities = probabilities + np.random.default_rng(0).random(200) / 100  # no ties
    order = probabilities.argsort()
    parts = zip(np.split(probabilities[order], 10), np.split(labels[order], 10), strict=True)
    expected = sum(abs(part.mean() - truth.mean()) for part, truth in parts) / 10
    assert calibration(probabilities, labels).ece == pytest.approx(expected)


def test_equal_probabilities_share_a_bin() -> None:
    constant, labels = np.full(8, 0.5), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert calibration(constant, labels) == (1.0, 0.0)
    probabilities, labels, _ = impressions(1)
    shuffled = np.random.default_rng(1).permutation(len(labels))
    assert calibration(probabilities[shuffled], labels[shuffled]).ece == pytest.approx(
        calibration(probabilities, labels).ece
    )


def test_normalised_entropy_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    assert normalised_entropy(np.full(4, 0.25), labels) == pytest.approx(1.0)
    entropy = (3 * math.log(4 / 3) + math.log(4)) / 4
    assert normalised_entropy(np.full(4, 0.5), labels) == pytest.approx(math.log(2) / entropy)


def test_brier_by_hand() -> None:
    assert brier(np.array([0.5, 1.0, 0.0]), np.array([1, 1, 1])) == pytest.approx((1 / 4 + 0 + 1) / 3)


# -- against references


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_scikit_learn(seed: int) -> None:
    probabilities, labels, _ = impressions(seed)
    assert auc(probabilities, labels) == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)
    assert log_loss(probabilities, labels) == pytest.approx(sklearn_log_loss(labels, probabilities), rel=1e-12)
    assert brier(probabilities, labels) == pytest.approx(brier_score_loss(labels, probabilities), rel=1e-12)
    base_rate = sklearn_log_loss(labels, np.full(len(labels), labels.mean()))
    assert normalised_entropy(probabilities, labels) == pytest.approx(
        sklearn_log_loss(labels, probabilities) / base_rate, rel=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_gauc_equals_a_loop_over_users(seed: int) -> None:
    scores, labels, users = impressions(seed)
    expected, left_out = looped_gauc(scores, labels, users)
    assert 0 < left_out < 1
    assert gauc(scores, labels, users) == pytest.approx((expected, left_out), abs=1e-12)


def test_gauc_of_one_user_is_the_auc() -> None:
    scores, labels, _ = impressions(0)
    assert gauc(scores, labels, np.zeros(len(labels), dtype=int)) == (auc(scores, labels), 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_equal_arrays(dtype: torch.dtype) -> None:
    probabilities, labels, users = impressions(3)
    given = torch.tensor(probabilities, dtype=dtype, requires_grad=True)
    same = given.detach().double().numpy()
    truth, owners = torch.tensor(labels), torch.tensor(users)
    assert auc(given, truth.bool()) == auc(same, labels)
    assert gauc(given, truth.float(), owners) == gauc(same, labels, users)
    assert log_loss(given, truth) == log_loss(same, labels)
    assert calibration(given, truth) == calibration(same, labels)


# -- undefined values


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_out_what_is_undefined(label: int) -> None:
    probabilities, labels = np.array([0.3, 0.6]), np.full(2, label)
    assert auc(probabilities, labels) is None and normalised_entropy(probabilities, labels) is None
    assert (calibration(probabilities, labels).ratio is None) == (label == 0)
    accumulator = BinaryAccumulator()
    accumulator.update(probabilities, labels, np.array([0, 1]))
    wanted = ["log_loss", "calibration", "ece", "brier"] if label else ["log_loss", "ece", "brier"]
    assert list(accumulator.compute()) == wanted


def test_no_rows() -> None:
    empty = np.zeros(0)
    assert auc(empty, empty) is None and log_loss(empty, empty) is None and brier(empty, empty) is None
    assert normalised_entropy(empty, empty) is None and calibration(empty, empty) == (None, None)
    assert gauc(empty, empty, np.zeros(0, dtype=int)) == (None, 0.0)
    accumulator = BinaryAccumulator()
    assert accumulator.compute() == {}
    accumulator.update(empty, empty)
    assert accumulator.compute() == {}


# -- the accumulator


@pytest.mark.parametrize("batch_size", [1, 7, 128, 400])
def test_batches_do_not_change_the_result(batch_size: int) -> None:
    probabilities, labels, users = impressions(2)
    accumulator = BinaryAccumulator(bins=5)
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        accumulator.update(torch.tensor(probabilities[rows]), labels[rows], users[rows])
        if start == 0:
            accumulator.compute()
    ratio, ece = calibration(probabilities, labels, bins=5)
    expected = {
        "auc": auc(probabilities, labels),
        "gauc": gauc(probabilities, labels, users).value,
        "log_loss": log_loss(probabilities, labels),
        "calibration": ratio,
        "ece": ece,
        "normalised_entropy": normalised_entropy(probabilities, labels),
        "brier": brier(probabilities, labels),
    }
    assert accumulator.compute() == accumulator.compute() == expected
    assert tuple(accumulator.compute()) == METRICS
    assert all(type(value) is float for value in accumulator.compute().values())


def test_without_users_there_is_no_gauc() -> None:
    accumulator = BinaryAccumulator()
    accumulator.update(*impressions(0)[:2])
    assert tuple(accumulator.compute()) == tuple(name for name in METRICS if name != "gauc")


def test_the_caller_may_reuse_its_buffers() -> None:
    scores, labels, users = np.array([0.2, 0.8]), np.array([False, True]), torch.tensor([0, 0])
    accumulator = BinaryAccumulator()
    accumulator.update(scores, labels, users)
    scores[:], labels[:], users[1] = 0.5, True, 1
    found = accumulator.compute()
    assert found["auc"] == found["gauc"] == 1 and found["brier"] == pytest.approx(0.2**2)


# -- wrong input


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, 0.5, 0.5], [0, 1], r"equal length .*\(3,\).*\(2,\)"),
        ([[0.5], [0.5]], [[0], [1]], r"equal length .*\(2, 1\)"),
        ([0.5, 0.5], [0, 2], r"0 or 1, got 2\.0 at position 1"),
        ([0.5, 0.5], [0, np.nan], r"0 or 1, got nan at position 1"),
        ([np.nan, 0.5], [0, 1], "got NaN at position 0"),
        ([0.5, 1.5], [0, 1], r"0\.\.1, got 1\.5 at position 1"),
        ([-0.5, 1.0], [0, 1], r"0\.\.1, got -0\.5 at position 0"),
        ([0.5, 0.5], ["no", "yes"], "labels must be numbers"),
    ],
)
def test_wrong_input_is_refused(scores: list, labels: list, message: str) -> None:
    given, truth = np.array(scores), np.array(labels)
    accumulator = BinaryAccumulator()
    for function in (log_loss, calibration, normalised_entropy, brier, accumulator.update):
        with pytest.raises(GenrecError, match=message):
            function(given, truth)
    assert accumulator.compute() == {}
    if "0\\.\\.1" not in message:
        with pytest.raises(GenrecError, match=message):
            auc(given, truth)
        with pytest.raises(GenrecError, match=message):
            gauc(given, truth, np.array([0, 1]))


def test_wrong_users_are_refused() -> None:
    scores, labels = np.array([0.2, 0.8]), np.array([0, 1])
    accumulator = BinaryAccumulator()
    for users, message in ((np.array([0]), r"users \(1,\)"), (np.array([0.0, np.nan]), "whole-number or text ids")):
        with pytest.raises(GenrecError, match=message):
            gauc(scores, labels, users)
        with pytest.raises(GenrecError, match=message):
            accumulator.update(scores, labels, users)
    accumulator.update(scores, labels)
    with pytest.raises(GenrecError, match="every batch or with none, got some"):
        accumulator.update(scores, labels, np.array([0, 1]))
    accumulator = BinaryAccumulator()
    accumulator.update(scores, labels, np.array([0, 1]))
    with pytest.raises(GenrecError, match="every batch or with none, got none"):
        accumulator.update(scores, labels)


def test_wrong_bins_are_refused() -> None:
    with pytest.raises(GenrecError, match="from 1 up, got 0"):
        calibration(np.array([0.5]), np.array([1]), bins=0)
    with pytest.raises(GenrecError, match="from 1 up, got 0"):
        BinaryAccumulator(bins=0)
