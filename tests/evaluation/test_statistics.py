"""The statistics behind evaluations and comparisons, against SciPy, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import statistics
from pipeline.training.sureness import fit_temperature


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (3, 3), (10, 25), (0, 1), (900, 1000)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    expected = stats.binomtest(only_a, n).pvalue if n else 1.0
    assert statistics.mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_the_bootstrap_interval_of_a_share_is_that_of_the_normal_approximation() -> None:
    hits = np.arange(4000) < 3200
    found = statistics.bootstrap_mean(hits)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 4000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.002)
    assert found.high == pytest.approx(0.8 + half, abs=0.002)


def test_the_bootstrap_interval_of_continuous_values_agrees_with_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=300)
    found = statistics.bootstrap_mean(values)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)


def test_hits_are_compared_on_the_same_samples() -> None:
    a = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    b = np.array([1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=bool)
    found = statistics.compare_hits(a, b)
    assert (found.only_a, found.only_b) == (1, 9)
    assert found.difference.value == pytest.approx(8 / 12)
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.significant()


def test_errors_are_compared_by_signs_alone_where_nothing_differs_it_says_so() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=60)
    b = a + generator.normal(0.3, 1.0, size=60)
    found = statistics.compare_values(a, b)
    expected = stats.permutation_test(
        (b - a, np.zeros(60)),
        lambda x, y: np.mean(x - y),
        permutation_type="samples",
        n_resamples=4000,
        rng=np.random.default_rng(3),
    ).pvalue
    assert found.p_value == pytest.approx(expected, abs=0.03)
    same = statistics.compare_values(a, a)
    assert same.p_value == 1.0
    assert not same.significant()


def test_calibration_error_of_two_bins_by_hand() -> None:
    confidence, correct = np.array([0.6, 0.6, 0.95, 0.95]), np.array([1, 0, 1, 1])
    assert statistics.calibration_error(confidence, correct, bins=10) == pytest.approx(
        (0.1 * 2 + 0.05 * 2) / 4
    )
    assert statistics.calibration_error(np.array([1.0]), np.array([1])) == 0.0


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_that_labels_were_drawn_with_is_found(classes: int) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, classes)) * 3
    p = np.exp(logits / 2.5)
    p /= p.sum(1, keepdims=True)
    labels = (p.cumsum(1) > generator.random((20_000, 1))).argmax(1)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)
    if classes == 2:
        assert fit_temperature(logits[:, 1] - logits[:, 0], labels) == pytest.approx(2.5, rel=0.05)


def test_drift_is_seen_where_there_is_one() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=500), generator.normal(size=500)
    assert statistics.drift(a, b)[1] > 0.01
    statistic, p = statistics.drift(a, np.append(b + 1, np.nan))
    assert statistic == pytest.approx(stats.ks_2samp(a, b + 1).statistic)
    assert p < 1e-6


def test_no_samples_give_nan_not_an_error() -> None:
    assert math.isnan(statistics.bootstrap_mean(np.zeros(0)).low)
    assert math.isnan(statistics.calibration_error(np.zeros(0), np.zeros(0)))
