"""A gain's interval: what it is made of, how often it is wrong, and that it finds what is there."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.training.gains import Gain, Sampled, between, gain_of, gain_of_fits, gain_of_shares

REPETITIONS = 200


def test_without_hits_it_is_students_interval_with_nadeau_and_bengios_factor() -> None:
    gains = np.random.default_rng(0).normal(0.3, 1.0, 50)
    found = gain_of(Sampled(gains), train_samples=200)
    plain = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(gains.mean())
    assert found.high - found.low == pytest.approx((plain.high - plain.low) * math.sqrt(1 + 50 / 200))


def test_of_hits_it_is_bonett_and_prices_interval() -> None:
    # Their formula by hand: 12 samples that the model alone got right, 3 the baseline alone, of 40.
    gains = np.array([1.0] * 12 + [-1.0] * 3 + [0.0] * 25)
    found = gain_of(Sampled(gains), train_samples=10**12)
    up, down = 13 / 42, 4 / 42
    far = stats.norm.ppf(0.975) * math.sqrt((up + down - (up - down) ** 2) / 42)
    assert (found.low, found.high) == pytest.approx((up - down - far, up - down + far), rel=1e-6)


@pytest.mark.parametrize(("right", "says"), [(3, "cannot be told apart from"), (30, "beats")])
def test_a_handful_of_hits_proves_nothing(right: int, says: str) -> None:
    assert gain_of(Sampled(np.ones(right)), train_samples=1000).says == says


@pytest.mark.parametrize("gains", [[], [1.0], [0.3]])
def test_of_one_sample_nothing_is_told(gains: list[float]) -> None:
    found = gain_of(Sampled(np.array(gains)), train_samples=10)
    assert math.isnan(found.low) and found.says == "cannot be told apart from"


def test_splits_that_agree_add_nothing_and_splits_that_do_not_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(1.0, 1.0, 400), generator.normal(1.0, 1.0, 400)
    assert between(Sampled(first), Sampled(second)) == 0
    assert between(Sampled(first), None) == 0
    apart = Sampled(second - 1.0)
    difference = first.mean() - apart.gains.mean()
    noise = (first.var(ddof=1) + apart.gains.var(ddof=1)) / 400
    assert between(Sampled(first), apart) == pytest.approx((difference**2 - noise) / 2, rel=1e-2)
    assert gain_of(Sampled(first), 1000).says == "beats"
    # What is good for one split and for nothing on the other may be luck.
    assert gain_of(Sampled(first), 1000, apart).says == "cannot be told apart from"


def test_the_fits_of_a_cross_validation_are_not_independent() -> None:
    gains = [0.5, 0.2, 0.4, 0.3, 0.1]
    found = gain_of_fits(gains, test_share=1 / 4)
    far = stats.t.ppf(0.975, 4) * math.sqrt(np.var(gains, ddof=1) * (1 / 5 + 1 / 4))
    assert (found.low, found.high) == pytest.approx((0.3 - far, 0.3 + far))
    assert gain_of_fits([0.3], 1 / 4).says == "cannot be told apart from"


def test_seeds_share_the_noise_of_their_test_samples() -> None:
    alike = gain_of_fits([0.3, 0.3, 0.3], 0.0, errors=[0.1, 0.1, 0.1])
    assert alike.high - alike.low == pytest.approx(2 * stats.norm.ppf(0.975) * 0.1, rel=1e-6)
    assert gain_of_fits([0.3, 0.3, 0.3], 0.0, errors=[0.2] * 3).says == "cannot be told apart from"


def test_two_shares_alone_have_the_widest_interval_of_all_pairings() -> None:
    """No way to pair 70 and 50 hits of 100 samples has a wider one."""
    widest = gain_of_shares(0.7, 0.5, 100, 1000)
    widths = []
    for both in range(20, 51):
        up, down = 70 - both, 50 - both
        gains = np.array([1.0] * up + [-1.0] * down + [0.0] * (100 - up - down))
        found = gain_of(Sampled(gains), 1000)
        widths.append(found.high - found.low)
    assert widest.high - widest.low == pytest.approx(max(widths))
    assert widest.value == pytest.approx(0.2)


def _classes(generator: np.random.Generator, rows: int, classes: int, signal: float, skew: float) -> Any:
    """Inputs and labels: a linear rule with noise where there is a signal, else labels that know nothing of inputs."""
    p = np.ones(classes)
    p[0] += skew
    centres = signal * generator.normal(size=(classes, 10))
    y = generator.choice(classes, size=rows, p=p / p.sum())
    return centres[y] + generator.normal(size=(rows, 10)), y


def _said_of_classes(seed: int, classes: int, signal: float, skew: float = 0.0, rows: int = 900) -> Gain:
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    generator = np.random.default_rng([seed, classes, int(10 * skew)])
    x, y = _classes(generator, rows, classes, signal, skew)
    train, validation, test = np.split(np.arange(rows), [rows // 2, 2 * rows // 3])
    model = DecisionTreeClassifier(max_depth=6, random_state=seed) if seed % 2 else LogisticRegression()
    model.fit(x[train], y[train])
    majority = np.bincount(y[train]).argmax()

    def on(part: np.ndarray) -> Sampled:
        hits = (model.predict(x[part]) == y[part]).astype(float) - (y[part] == majority)
        return Sampled(hits, y[part])

    return gain_of(on(test), len(train), on(validation))


def _said_of_numbers(seed: int, signal: float, rows: int = 300) -> Gain:
    from sklearn.linear_model import Ridge
    from sklearn.tree import DecisionTreeRegressor

    generator = np.random.default_rng([seed, 1])
    x = generator.normal(size=(rows, 10))
    y = signal * x[:, 0] + generator.standard_t(4, size=rows)
    train, validation, test = np.split(np.arange(rows), [rows // 2, 2 * rows // 3])
    model = DecisionTreeRegressor(max_depth=3, random_state=seed) if seed % 2 else Ridge(alpha=100.0)
    model.fit(x[train], y[train])

    def on(part: np.ndarray) -> Sampled:
        return Sampled(np.abs(y[part] - y[train].mean()) - np.abs(y[part] - model.predict(x[part])))

    return gain_of(on(test), len(train), on(validation))


def _said_of_random_labels(seed: int, plainly: bool = False) -> Gain:
    """Ten tight groups of inputs whose training and validation labels are shuffled, and those of the test are not."""
    from sklearn.tree import DecisionTreeClassifier

    generator = np.random.default_rng([seed, 2])
    x, y = _classes(generator, 4000, 10, 3.0, 0.1)
    train, validation, test = np.split(np.arange(4000), [2000, 2500])
    shuffled = y.copy()
    shuffled[:2500] = generator.permutation(y[:2500])
    model = DecisionTreeClassifier(max_depth=4, random_state=seed).fit(x[train], shuffled[train])
    majority = np.bincount(shuffled[train]).argmax()

    def on(part: np.ndarray) -> Sampled:
        hits = (model.predict(x[part]) == shuffled[part]).astype(float) - (shuffled[part] == majority)
        return Sampled(hits, shuffled[part])

    if plainly:
        # As if the test samples were all that is uncertain.
        return gain_of(on(test), 10**12)
    return gain_of(on(test), len(train), on(validation))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["two classes", "ten classes", "a frequent class", "numbers", "random labels", "folds"]
)
def test_of_pure_noise_at_most_one_in_twenty_models_beats_the_baseline(kind: str) -> None:
    said = {
        "two classes": lambda seed: _said_of_classes(seed, 2, 0.0),
        "ten classes": lambda seed: _said_of_classes(seed, 10, 0.0),
        "a frequent class": lambda seed: _said_of_classes(seed, 3, 0.0, skew=3.0),
        "numbers": lambda seed: _said_of_numbers(seed, 0.0),
        "random labels": _said_of_random_labels,
        "folds": _said_of_folds,
    }[kind]
    wrong = sum(said(seed).says == "beats" for seed in range(REPETITIONS)) / REPETITIONS
    print(f"{kind}: {wrong:.1%} of {REPETITIONS} models are wrongly said to beat the baseline")
    assert wrong <= 0.05


def _said_of_folds(seed: int) -> Gain:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    generator = np.random.default_rng([seed, 3])
    x, y = generator.normal(size=(150, 8)), generator.normal(size=150)
    gains = []
    for train, test in KFold(5, shuffle=True, random_state=seed).split(x):
        model = Ridge(alpha=300.0).fit(x[train], y[train])
        off = np.abs(y[test] - y[train].mean()) - np.abs(y[test] - model.predict(x[test]))
        gains.append(off.mean())
    return gain_of_fits(gains, 1 / 4)


@pytest.mark.slow
def test_an_interval_of_the_test_samples_alone_is_wrong_where_labels_are_random() -> None:
    wrong = np.mean([_said_of_random_labels(seed, plainly=True).says == "beats" for seed in range(100)])
    print(f"{wrong:.0%}")
    assert wrong > 0.05


@pytest.mark.slow
def test_a_clear_signal_is_found() -> None:
    found = {
        "two classes": np.mean([_said_of_classes(seed, 2, 0.5).says == "beats" for seed in range(40)]),
        "ten classes": np.mean([_said_of_classes(seed, 10, 0.5).says == "beats" for seed in range(40)]),
        "numbers": np.mean([_said_of_numbers(seed, 2.0).says == "beats" for seed in range(40)]),
    }
    print(found)
    assert min(found.values()) >= 0.95


def test_a_gain_is_plain_values() -> None:
    assert asdict(gain_of(Sampled(np.array([0.5, 1.5, 1.0])), 100))["confidence"] == 0.95
