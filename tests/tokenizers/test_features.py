"""Features before quantisation."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from genrec.contracts import GenrecError
from genrec.data.ragged import Ragged
from genrec.tokenizers.features import item_features, principal_components, standardised, unit_rows

TRAIN = Ragged.from_rows([[0, 1, 2], [2, 3, 4], [1, 4]])


def random_vectors(rows: int = 30, width: int = 7) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.normal(size=(rows, width)) * np.arange(1, width + 1) + 10).astype(np.float32)


def test_standardised_equals_scikit_learn() -> None:
    vectors = random_vectors()
    np.testing.assert_allclose(standardised(vectors), StandardScaler().fit_transform(vectors.astype(float)), atol=1e-9)


def test_constant_dimensions_stay_finite_and_become_zero() -> None:
    vectors = random_vectors()
    vectors[:, 2] = 0.25
    vectors[:, 4] = 0.1 + np.float32(1e-8) * np.arange(30)  # rounding noise, not information
    result = standardised(vectors)
    assert np.isfinite(result).all() and not result[:, [2, 4]].any()
    assert np.isfinite(item_features(np.ones((30, 3), np.float32), TRAIN, collaborative_dim=0)).all()


def test_principal_components_equal_scikit_learn_up_to_sign() -> None:
    points = standardised(random_vectors())
    ours, theirs = principal_components(points, 3), PCA(3).fit_transform(points)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    assert principal_components(points, 100).shape == (30, 7)


def test_unit_rows_keeps_zeros() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_text_and_behaviour_weigh_the_same() -> None:
    features = item_features(random_vectors(), TRAIN, text_dim=4, collaborative_dim=5)
    assert features.shape == (30, 9) and features.dtype == np.float32
    met = np.unique(TRAIN.values)
    np.testing.assert_allclose(np.linalg.norm(features[:, :4], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features[met, 4:], axis=1), 1, rtol=1e-5)


def test_collaborative_part_can_be_left_out() -> None:
    vectors = random_vectors()
    assert item_features(vectors, Ragged.from_rows([[0]]), collaborative_dim=0).shape == (30, 7)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(GenrecError, match="text_dim"):
        item_features(random_vectors(), TRAIN, text_dim=0)
    with pytest.raises(GenrecError, match="shape"):
        item_features(np.ones(3), TRAIN)
