"""The statistics behind evaluations and comparisons, against closed forms, full enumeration and simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import statistics
from pipeline.training.sureness import fit_temperature


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (3, 3), (10, 25), (0, 1), (900, 1000)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = Fraction(sum(math.comb(n, k) for k in range(fewer + 1)), 2**n)
    assert statistics.mcnemar(only_a, only_b) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)


def test_the_bootstrap_interval_of_a_share_is_that_of_the_normal_approximation() -> None:
    hits = np.arange(4000) < 3200
    found = statistics.bootstrap_mean(hits)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 4000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.002)
    assert found.high == pytest.approx(0.8 + half, abs=0.002)


def test_the_bootstrap_interval_of_continuous_values_is_that_of_drawing_them_again() -> None:
    values = np.random.default_rng(1).exponential(size=300)
    found = statistics.bootstrap_mean(values)
    generator = np.random.default_rng(2)
    means = [values[generator.integers(0, 300, 300)].mean() for _ in range(20_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    wider = statistics.bootstrap_mean(values, confidence=0.99)
    assert wider.low < found.low < found.high < wider.high
    assert statistics.bootstrap_mean(values) == found


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
    a = generator.normal(size=12)
    b = a + generator.normal(0.4, 1.0, size=12)
    found = statistics.compare_values(a, b)
    means = [abs(np.dot(signs, b - a)) / 12 for signs in product((-1, 1), repeat=12)]
    expected = np.mean(np.array(means) >= abs((b - a).mean()) - 1e-12)
    assert 0.05 < expected < 0.9
    assert found.p_value == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))
    assert statistics.compare_values(b, a).p_value == found.p_value
    same = statistics.compare_values(a, a)
    assert same.p_value == 1.0
    assert not same.significant()


def test_a_clear_difference_of_many_errors_has_the_smallest_p_value_there_is() -> None:
    differences = np.random.default_rng(0).normal(1.0, 1.0, size=30_000)
    found = statistics.compare_values(np.zeros(30_000), differences)
    assert found.p_value == pytest.approx(1 / 2001)
    assert found.difference.low == pytest.approx(1.0 - 1.96 / math.sqrt(30_000), abs=0.01)


def test_the_p_value_of_equal_models_is_as_often_small_as_it_says() -> None:
    generator = np.random.default_rng(0)
    p = [statistics.compare_values(np.zeros(20), generator.normal(size=20)).p_value for _ in range(400)]
    # 5 % of 400 are 20, give or take 4.4.
    assert 7 <= sum(value < 0.05 for value in p) <= 33


def test_sums_of_groups_stand_for_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(statistics, "MOST", 40)
    grouped = statistics._grouped(np.arange(101.0), generator)
    # 33 groups of three, and one of two.
    assert len(grouped) == 34 and grouped.mean() == pytest.approx(50)
    assert statistics._grouped(np.arange(40.0), generator).tolist() == list(range(40))
    covered, small = 0, 0
    for _ in range(300):
        # Far from 0, and with a long tail to one side.
        values = 100 + generator.exponential(size=203)
        interval = statistics.bootstrap_mean(values)
        assert interval.value == pytest.approx(values.mean())
        covered += interval.low <= 101 <= interval.high
        small += statistics.compare_values(np.zeros(203), values - 101).p_value < 0.05
    # Of 300, 95 % give or take three times 3.8, and 5 % likewise.
    assert 272 <= covered <= 297
    assert 3 <= small <= 27


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("samples", [1, 3, 40])
def test_values_that_are_not_finite_give_nan_and_never_a_verdict(strange: float, samples: int) -> None:
    a = np.random.default_rng(0).normal(size=samples)
    b = a + 1
    b[-1] = strange
    interval = statistics.bootstrap_mean(b)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    found = statistics.compare_values(a, b)
    assert math.isnan(found.p_value)
    assert not found.significant()


def test_one_sample_proves_nothing() -> None:
    found = statistics.compare_values(np.array([1.0]), np.array([3.0]))
    assert (found.difference.value, found.difference.low, found.difference.high) == (2.0, 2.0, 2.0)
    assert found.p_value == 1.0


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
    assert not statistics.compare_values(np.zeros(0), np.zeros(0)).significant()
    assert math.isnan(statistics.calibration_error(np.zeros(0), np.zeros(0)))


def test_shares_are_tested_exactly() -> None:
    from scipy.stats import fisher_exact

    before, now = np.array([5, 30, 0, 40]), np.array([20, 32, 9, 10])
    size, p = statistics.shares_differ(before, 400, now, 300)
    assert size == pytest.approx(np.abs(now / 300 - before / 400))
    for k, m, found in zip(before, now, p, strict=True):
        table = [[m, 300 - m], [k, 400 - k]]
        tails = [fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
        assert found == pytest.approx(min(1.0, 2 * min(tails)))
    # Nothing moves: at most one in a hundred samples says so of any of many things.
    generator = np.random.default_rng(0)
    counts = generator.binomial(500, 0.02, (2, 400, 100))
    alarms = [
        bool((statistics.shares_differ(a, 500, b, 500)[1] < 0.01 / 100).any())
        for a, b in zip(*counts, strict=True)
    ]
    assert np.mean(alarms) <= 0.015
