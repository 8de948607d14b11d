from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

from genrec.contracts import GenrecError
from genrec.data.numbers import Moments, Sample, Scaling, ScalingFit, logarithm

VALUES = np.concatenate([np.random.default_rng(0).lognormal(sigma=2, size=997), [0.0, 0.0, -3.5]])


def fitted(transform, values: np.ndarray = VALUES, *, pieces: int = 4, quantiles: int = 100) -> Scaling:
    fit = ScalingFit(transform, quantiles)
    for rows in np.array_split(np.arange(len(values)), pieces):
        fit.add(values[rows], rows)
    return fit.finish("data.features.x")


def test_numbers_too_large_or_too_close_to_be_scaled():
    large = np.array([1e200, -1e200, 3.0])
    with pytest.raises(GenrecError, match=r"data\.features\.x: values from -1e\+200 to 1e\+200.*log or quantile"):
        fitted("standard", large, pieces=1)
    with pytest.raises(GenrecError, match="32-bit"):
        fitted("none", np.array([1e39, 0.0]), pieces=1)
    for transform in ("log", "quantile"):
        assert np.isfinite(fitted(transform, large, pieces=1)(large)).all()
    close = np.array([0.0, 1e-200])  # of which the squares are 0
    assert np.isfinite(fitted("standard", close, pieces=1)(close)).all()


def test_moments_of_chunks_are_those_of_all():
    values = VALUES + 1e6
    moments = Moments()
    for chunk in np.array_split(np.concatenate([values, [np.nan]]), 7):
        moments.add(chunk)
    moments.add(np.array([np.nan]))
    assert moments.count == 1000
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.std == pytest.approx(values.std(), rel=1e-9)
    assert (moments.low, moments.high) == (values.min(), values.max())


def test_a_sample_does_not_depend_on_chunks_and_is_fair():
    rows = np.arange(20_000)
    samples = []
    for pieces in (1, 9):
        sample = Sample(size=1000)
        for part in np.array_split(rows, pieces):
            sample.add(part.astype(float), part)
        samples.append(np.sort(sample.values))
    assert np.array_equal(*samples) and len(samples[0]) == 1000
    assert abs(samples[0].mean() / 10_000 - 1) < 0.06


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("standard", StandardScaler().fit_transform(VALUES[:, None])),
        ("log", StandardScaler().fit_transform(logarithm(VALUES)[:, None])),
        ("minmax", MinMaxScaler().fit_transform(VALUES[:, None])),
        ("quantile", QuantileTransformer(n_quantiles=100).fit_transform(VALUES[:, None])),
        ("none", VALUES[:, None]),
    ],
)
def test_transforms_agree_with_scikit_learn(transform, expected):
    np.testing.assert_allclose(fitted(transform)(VALUES), expected[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", ["standard", "log", "quantile", "minmax", "none"])
def test_a_missing_number_is_the_mean_of_training(transform):
    scaling = fitted(transform, np.concatenate([VALUES, [np.nan] * 5]))
    found = scaling(np.append(VALUES, np.nan))
    assert found[-1] == pytest.approx(found[:-1].astype(np.float64).mean(), rel=1e-4, abs=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("transform", ["standard", "log", "quantile", "minmax", "none"])
def test_constant_and_empty_fields_give_finite_numbers(transform):
    constant, empty = fitted(transform, np.full(9, 4.0)), fitted(transform, np.full(9, np.nan))
    assert constant.constant and empty.constant and not fitted(transform).constant
    assert np.isfinite(constant(np.array([4.0, 5.0, np.nan]))).all()
    assert np.isfinite(empty(np.array([4.0, np.nan]))).all()


def test_logarithm_is_odd():
    assert logarithm(np.array([np.e - 1, 0.0, 1 - np.e])).tolist() == pytest.approx([1.0, 0.0, -1.0])


def test_state_survives_json():
    scaling = fitted("quantile")
    assert Scaling.from_state(json.loads(json.dumps(scaling.state()))) == scaling
