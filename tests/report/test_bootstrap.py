from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from genrec.report.bootstrap import (
    AreaUnderCurve,
    FunctionOfSums,
    holm,
    interval,
    mean_interval,
    paired_bootstrap,
    resampled_means,
    resampled_statistics,
    with_seed_noise,
)


def mean_of(values: np.ndarray) -> FunctionOfSums:
    return FunctionOfSums(values, lambda sums, weight: sums[:, 0] / weight)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


class TestPairedBootstrap:
    def test_equal_runs_differ_by_exactly_nothing(self, rng: np.random.Generator) -> None:
        values = rng.random(50)
        found = paired_bootstrap(values, values, resamples=200)
        assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
        assert not found.excludes_zero

    def test_a_constant_shift_has_no_spread(self) -> None:
        values = np.arange(64.0)
        found = paired_bootstrap(values, values + 0.25, resamples=200)
        assert (found.value, found.low, found.high, found.standard_error) == (0.25, 0.25, 0.25, 0)
        assert found.p_value == pytest.approx(2 / 201)
        assert found.excludes_zero

    def test_is_b_minus_a(self) -> None:
        assert paired_bootstrap(np.zeros(9), np.ones(9), resamples=100).value == 1

    @pytest.mark.parametrize("kinds", [3, 0])  # few distinct users, and all different
    def test_agrees_with_scipy(self, rng: np.random.Generator, kinds: int) -> None:
        a, b = (rng.integers(0, kinds, 300) * 1.0 if kinds else rng.exponential(size=300) for _ in range(2))
        ours = paired_bootstrap(a, b, resamples=10_000)
        theirs = stats.bootstrap((b - a,), np.mean, n_resamples=10_000, method="percentile", rng=rng)
        width = theirs.confidence_interval.high - theirs.confidence_interval.low
        assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
        assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.04)

    def test_the_standard_error_is_that_of_a_mean(self, rng: np.random.Generator) -> None:
        a, b = rng.random((2, 400))
        found = paired_bootstrap(a, b, resamples=10_000)
        assert found.standard_error == pytest.approx((b - a).std() / np.sqrt(400), rel=0.03)

    def test_pairing_takes_off_what_both_share(self, rng: np.random.Generator) -> None:
        easy = 10 * rng.random(200)
        paired = paired_bootstrap(easy, easy + 0.1 * rng.random(200), resamples=500)
        unpaired = paired_bootstrap(easy, rng.permutation(easy), resamples=500)
        assert paired.standard_error < unpaired.standard_error / 50

    def test_95_percent_intervals_hold_the_truth_in_95_percent_of_samples(self, rng: np.random.Generator) -> None:
        covered, rejected = 0, 0
        for repetition in range(400):
            a = rng.random(100) < 0.3
            b = np.where(rng.random(100) < 0.5, a, rng.random(100) < 0.4)  # the true difference is 0.05
            found = paired_bootstrap(a, b, resamples=600, seed=repetition)
            covered += found.low <= 0.05 <= found.high
            shifted = paired_bootstrap(a, b - 0.05, resamples=600, seed=repetition)
            assert shifted.p_value is not None
            rejected += shifted.p_value < 0.05
        assert stats.binomtest(covered, 400, 0.95).pvalue > 0.001
        assert stats.binomtest(rejected, 400, 0.05).pvalue > 0.001

    def test_the_p_value_agrees_with_the_interval(self, rng: np.random.Generator) -> None:
        for _ in range(30):
            a, b = rng.random((2, 60))
            found = paired_bootstrap(a, b + 0.08, resamples=2000)
            assert found.p_value is not None
            assert (found.p_value < 0.05) == found.excludes_zero or abs(found.p_value - 0.05) < 0.003

    def test_depends_on_the_seed_alone(self, rng: np.random.Generator) -> None:
        a, b = rng.random((2, 40))
        assert paired_bootstrap(a, b, resamples=300, seed=1) == paired_bootstrap(a, b, resamples=300, seed=1)
        assert paired_bootstrap(a, b, resamples=300, seed=1) != paired_bootstrap(a, b, resamples=300, seed=2)

    def test_a_higher_confidence_is_wider(self, rng: np.random.Generator) -> None:
        a, b = rng.random((2, 100))
        narrow, wide = (paired_bootstrap(a, b, confidence=level) for level in (0.8, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high


class TestResampledMeans:
    def test_distinct_rows_and_kinds_have_the_same_distribution(self, rng: np.random.Generator) -> None:
        values = rng.integers(0, 2, (400, 2)).astype(float)
        as_kinds = resampled_means(values, resamples=4000)
        one_by_one = resampled_means(values + 1e-9 * rng.random((400, 2)), resamples=4000)
        for column in range(2):
            quantiles = [np.quantile(draws[:, column], [0.025, 0.5, 0.975]) for draws in (as_kinds, one_by_one)]
            assert quantiles[0] == pytest.approx(quantiles[1], abs=0.006)
        assert np.cov(as_kinds.T) == pytest.approx(np.cov(one_by_one.T), abs=1e-4)

    def test_columns_are_drawn_together(self, rng: np.random.Generator) -> None:
        values = rng.random((100, 1))
        draws = resampled_means(np.hstack([values, 2 * values]), resamples=50)
        assert draws[:, 1] == pytest.approx(2 * draws[:, 0])

    def test_chunks_change_nothing(self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        values = rng.random((30, 2))
        whole = resampled_means(values, resamples=100)
        monkeypatch.setattr("genrec.report.bootstrap._CELLS", 210)
        assert resampled_means(values, resamples=100) == pytest.approx(whole)

    def test_mean_interval(self) -> None:
        found = mean_interval(np.full(8, 0.5), resamples=100)
        assert (found.value, found.low, found.high, found.p_value) == (0.5, 0.5, 0.5, None)


class TestAreaUnderCurve:
    def test_agrees_with_sklearn_under_weights_and_ties(self, rng: np.random.Generator) -> None:
        scores, labels = rng.integers(0, 12, 200), rng.random(200) < 0.3
        weights = rng.integers(0, 4, (5, 200)).astype(float)
        expected = [roc_auc_score(labels, scores, sample_weight=weight) for weight in weights]
        assert AreaUnderCurve(scores, labels)(weights) == pytest.approx(expected, abs=1e-12)

    def test_is_not_defined_without_a_negative(self) -> None:
        assert np.isnan(AreaUnderCurve(np.arange(3), np.array([1, 1, 0]))(np.array([[1.0, 1.0, 0.0]]))).all()

    def test_the_standard_error_is_that_of_delong(self, rng: np.random.Generator) -> None:
        """DeLong, DeLong and Clarke-Pearson (1988): from the share of the others that each row beats."""
        labels = rng.random(500) < 0.4
        scores = rng.normal(size=500) + labels
        wins = (scores[labels][:, None] > scores[~labels][None, :]).astype(float)
        expected = np.sqrt(wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1])
        draws = resampled_statistics([AreaUnderCurve(scores, labels)], 500, resamples=2000)[:, 0]
        assert draws.std() == pytest.approx(expected, rel=0.06)
        assert draws.mean() == pytest.approx(roc_auc_score(labels, scores), abs=0.002)


class TestResampledStatistics:
    def test_means_have_the_spread_of_means(self, rng: np.random.Generator) -> None:
        values = rng.random(300)
        draws = resampled_statistics([mean_of(values)], 300, resamples=3000)[:, 0]
        assert draws.std() == pytest.approx(values.std() / np.sqrt(300), rel=0.05)

    def test_groups_are_drawn_whole(self, rng: np.random.Generator) -> None:
        """Rows that repeat what their user did bring no certainty: four copies of each user are as good as one."""
        values = rng.random(200)
        copies = np.tile(values, 4)
        draws = resampled_statistics([mean_of(copies)], 800, groups=np.tile(np.arange(200), 4), resamples=3000)[:, 0]
        assert draws.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.06)

    def test_all_statistics_see_the_same_resample(self, rng: np.random.Generator) -> None:
        values = rng.random(50)
        draws = resampled_statistics([mean_of(values), mean_of(values + 1)], 50, resamples=20)
        assert draws[:, 1] - draws[:, 0] == pytest.approx(np.ones(20))

    def test_what_is_not_defined_does_not_count(self) -> None:
        found = interval(0.5, np.array([0.4, np.nan, 0.6]))
        assert found.resamples == 2
        assert 0.4 <= found.low <= found.high <= 0.6


class TestSeedNoise:
    def test_is_welchs_interval_where_users_add_nothing(self) -> None:
        a, b = [0.30, 0.34, 0.29, 0.33], [0.40, 0.38, 0.45]
        draws = with_seed_noise(np.full(400_000, np.mean(b) - np.mean(a)), a, b)
        assert draws is not None
        expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([expected.low, expected.high], abs=0.002)

    def test_one_seed_each_tells_nothing(self) -> None:
        assert with_seed_noise(np.zeros(5), [0.1], [0.2]) is None

    def test_a_single_run_counts_as_exact(self) -> None:
        draws = with_seed_noise(np.zeros(400_000), [0.5], [0.1, 0.2, 0.3])
        assert draws is not None
        assert np.quantile(draws, 0.975) == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3), rel=0.02)

    def test_seeds_that_agree_add_nothing(self) -> None:
        draws = np.arange(5.0)
        assert with_seed_noise(draws, [0.5, 0.5], [0.7]) is draws


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
