"""Looks at a test before its end, against published bounds and simulated tests; plan and verdict of an A/B test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from scipy.stats import norm, t, ttest_ind

from pipeline.data.core.splitting import shares_of_keys
from pipeline.errors import UserError
from pipeline.evaluation.ab_test import in_words, planned, simulated, write
from pipeline.evaluation.sequential import bounds, crossing, dearer, needed, spent
from pipeline.runs.result import RunResult
from pipeline.tasks.ab_test import ab_test

FIVE = [0.2, 0.4, 0.6, 0.8, 1.0]


def test_bounds_are_those_of_lan_and_demets() -> None:
    # Reboussin, DeMets, Kim, Lan (Controlled Clinical Trials 21, 2000): five looks, two-sided 0.05.
    assert bounds(FIVE) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert bounds([1.0]) == pytest.approx([norm.isf(0.025)])
    assert sum(crossing(FIVE, bounds(FIVE, 0.1))) == pytest.approx(0.1) == pytest.approx(spent(1.0, 0.1))


def test_peeking_cries_wolf_as_often_as_armitage_found_and_the_bounds_do_not() -> None:
    # Armitage, McPherson, Rowe (1969), table 2: 2 looks 0.083, 5 looks 0.142, 10 looks 0.193.
    for looks, rate in ((2, 0.083), (5, 0.142), (10, 0.193)):
        fractions = [(number + 1) / looks for number in range(looks)]
        assert sum(crossing(fractions, [norm.isf(0.025)] * looks)) == pytest.approx(rate, abs=5e-4)


def test_power_and_size_are_those_of_simulated_sums() -> None:
    limits = bounds(FIVE)
    factor = dearer(FIVE, limits)
    # Jennison and Turnbull (2000), chapter 7: such bounds cost some percent.
    assert 1.01 < factor < 1.05
    drift = (norm.isf(0.025) + norm.ppf(0.8)) * np.sqrt(factor)
    steps = np.random.default_rng(0).normal(0, np.sqrt(0.2), (100_000, 5))
    for mean, expected in ((0.0, 0.05), (drift, 0.8)):
        z = np.cumsum(steps + mean * 0.2, axis=1) / np.sqrt(FIVE)
        assert (np.abs(z) >= limits).any(1).mean() == pytest.approx(expected, abs=0.005)


def test_the_number_of_customers_is_the_textbooks() -> None:
    # Two means, deviation 1, difference 0.5, power 80 %: 63 in each group by the normal distribution.
    assert needed(1.0, 0.5) == 63
    plan = planned(1.0, 0.5, 0.05, 0.8, 1)
    assert (plan.one_look, plan.customers) == (63, 126) and plan.peeking == pytest.approx(0.05)
    assert planned(1.0, 0.5, 0.05, 0.8, 5).customers > 126


def test_a_group_sees_its_own_suggestions_and_every_customer_counts_once() -> None:
    generator = np.random.default_rng(1)
    customers: list[str | None] = [f"c{number}" for number in generator.integers(0, 300, 3000)]
    customers[5] = None
    a, b = generator.random(3000) < 0.3, generator.random(3000) < 0.3
    plan = planned(0.2, 0.05, 0.05, 0.8, 3)
    found = simulated(customers, a, b, plan, ("A", "B"), seed=4)
    order = list(dict.fromkeys(name for name in customers if name is not None))
    count = round(min(len(order), plan.customers) / 3)
    second = shares_of_keys(order, 4)[:, 0] < 0.5
    visits = np.array(customers, dtype=object)

    def rates(hits: np.ndarray, members: list[str]) -> list[float]:
        return [float(hits[visits == name].mean()) for name in members]

    first = rates(a, [name for name, is_b in zip(order[:count], second, strict=False) if not is_b])
    other = rates(b, [name for name, is_b in zip(order[:count], second, strict=False) if is_b])
    assert (found.looks[0].a, found.looks[0].b) == pytest.approx((np.mean(first), np.mean(other)))
    error = np.sqrt(np.var(first, ddof=1) / len(first) + np.var(other, ddof=1) / len(other))
    assert found.looks[0].z == pytest.approx((np.mean(other) - np.mean(first)) / error)
    limit = t.isf(norm.sf(plan.limits[0]), ttest_ind(other, first, equal_var=False).df)
    assert found.looks[0].limit == pytest.approx(limit) and limit > plan.limits[0]
    assert found.looks[0].high - found.looks[0].low == pytest.approx(2 * limit * error)


def test_tests_without_a_difference_stop_no_more_often_than_they_say(tmp_path: Path) -> None:
    plan = planned(0.25, 0.07, 0.05, 0.8, 5)
    customers = [f"c{number % 500}" for number in range(2000)]
    stopped = {"same": 0, "better": 0}
    for seed in range(300):
        generator = np.random.default_rng(seed)
        taste = np.tile(generator.beta(2, 3, 500), 4)
        a, b = generator.random(2000) < taste, generator.random(2000) < np.minimum(1, taste + 0.07)
        stopped["same"] += simulated(customers, a, a, plan, ("A", "A"), seed).stopped
        found = simulated(customers, a, b, plan, ("A", "B"), seed)
        stopped["better"] += found.stopped and found.looks[-1].difference > 0
    # Two standard errors of 300 tests.
    assert stopped["same"] / 300 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)
    assert plan.customers <= 500 and stopped["better"] / 300 > 0.6
    files = write(found, tmp_path)
    assert found.verdict() in files[0].read_text(encoding="utf-8").replace("&#x27;", "'")


def test_small_tests_without_a_difference_stop_no_more_often_than_they_say() -> None:
    plan, customers = planned(0.5, 0.2, 0.05, 0.8, 5), [f"c{number}" for number in range(20)]
    generator, stopped = np.random.default_rng(0), 0
    for seed in range(1000):
        hits = generator.random(20) < 0.5
        found = simulated(customers, hits, hits, plan, ("A", "A"), seed)
        stopped += found.stopped
        assert all(look.customers >= 20 for look in found.looks)
    # Two standard errors of 1,000 tests; bounds of the normal distribution stop 128 to 158 of them.
    assert 0 < stopped / 1000 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_groups_without_any_spread_stop_nothing() -> None:
    customers, none = [f"c{number}" for number in range(60)], np.zeros(60, bool)
    found = simulated(customers, none, ~none, planned(0.5, 0.2, 0.05, 0.8, 2), ("A", "B"))
    assert not found.stopped and len(found.looks) == 2
    assert (found.looks[-1].difference, found.looks[-1].low, found.looks[-1].high) == (1.0, -1.0, 1.0)


def test_too_few_customers_are_said_to_be_too_few() -> None:
    generator = np.random.default_rng(0)
    customers = [f"c{number % 40}" for number in range(400)]
    hits = generator.random(400) < 0.4
    found = simulated(customers, hits, hits, planned(0.3, 0.05, 0.05, 0.8, 2), ("common sense", "model"))
    assert found.verdict().startswith("Undecided: take-up") and "There were 40 of the" in found.verdict()
    assert any("there are 40 in all" in line for line in in_words(found))
    with pytest.raises(UserError, match="two groups of at least two"):
        simulated(["one"] * 9, hits[:9], hits[:9], planned(0.3, 0.05, 0.05, 0.8, 2), ("a", "b"))


def test_other_models_are_refused(
    tmp_path: Path, finished: dict[str, RunResult], command: Callable[..., DictConfig]
) -> None:
    run = finished["linear"]
    with pytest.raises(UserError, match="task=ab_test is for models that recommend to customers"):
        ab_test(command("task=ab_test", f"task.run_id={run.run_id}", f"task.output={tmp_path}"))
