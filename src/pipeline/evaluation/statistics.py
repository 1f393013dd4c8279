"""Is a difference more than chance? Intervals by the bootstrap, McNemar's test, calibration, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval.

    Args:
        value: The estimate; NaN where there were no samples.
        low, high: Ends of the interval.
        confidence: Share of such intervals that hold the true value.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.confidence:.0%} interval {self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class PairedTest:
    """What a paired comparison of A and B on the same samples showed.

    Args:
        difference: Mean of B minus mean of A, with its bootstrap interval.
        p_value: Chance of a difference at least as large if there were none.
        method: Name of the test that gave the p-value.
        only_a, only_b: Number of samples that one of the two alone got right (McNemar only).
    """

    difference: Interval
    p_value: float
    method: str
    only_a: int | None = None
    only_b: int | None = None

    def significant(self, level: float = 0.05) -> bool:
        """Whether the difference is unlikely to be chance; equal predictions never are."""
        return self.p_value < level


def bootstrap_mean(values: Array, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of per-sample values with its percentile bootstrap interval.

    Args:
        values: Values, (samples,): 0 or 1 for wrong or right, or an error.
        confidence: Confidence of the interval, between 0 and 1.
        seed: Seed of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Interval(math.nan, math.nan, math.nan, confidence)
    means = _resampled_means(values, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), confidence)


def compare_hits(a: Array, b: Array, seed: int = 0) -> PairedTest:
    """McNemar's exact test on which samples A and B got right.

    Args:
        a, b: Whether each sample was right, (samples,), in the same order.
        seed: Seed of the interval's resampling.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    difference = bootstrap_mean(b.astype(np.float64) - a, seed=seed)
    return PairedTest(difference, mcnemar(only_a, only_b), "McNemar's exact test", only_a, only_b)


def compare_values(a: Array, b: Array, seed: int = 0) -> PairedTest:
    """A paired test on per-sample values (errors): the sign-flip test of the mean difference.

    Where the two do not differ, a difference is as likely as its negative: the p-value is the share of random signs
    that give a mean at least as far from 0.

    Args:
        a, b: Values in the same order, (samples,).
        seed: Seed of the resampling.
    """
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    interval = bootstrap_mean(differences, seed=seed)
    if not differences.any():
        return PairedTest(interval, 1.0, "paired randomisation test")
    generator = np.random.default_rng(seed)
    observed = abs(differences.mean())
    extreme = 0
    for _ in range(RESAMPLES):
        signs = generator.integers(0, 2, len(differences)) * 2 - 1
        extreme += abs(float((signs * differences).mean())) >= observed * (1 - 1e-12)
    # The observed signs are one of the possible ones.
    return PairedTest(interval, (extreme + 1) / (RESAMPLES + 1), "paired randomisation test")


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value: are the samples that one alone got right split as a fair coin would?"""
    n, fewer = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    # In log space, since the number of samples has no bound.
    logs = [_log_choose(n, k) - n * math.log(2) for k in range(fewer + 1)]
    largest = max(logs)
    tail = math.exp(largest) * sum(math.exp(value - largest) for value in logs)
    return min(1.0, 2 * tail)


def calibration_error(confidence: Array, correct: Array, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and share of right answers, in bins of equal width.

    Args:
        confidence: Probability of each predicted class, (samples,).
        correct: Whether each prediction was right, (samples,).
        bins: Number of bins of equal width between 0 and 1.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if len(confidence) == 0:
        return math.nan
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, confidence, bins) - np.bincount(place, correct, bins))
    return float(gap[count > 0].sum() / len(confidence))


def drift(before: Array, now: Array) -> tuple[float, float]:
    """Two-sample Kolmogorov–Smirnov test: has a distribution moved?

    Returns:
        The statistic (0 the same, 1 disjoint) and its p-value; values that are not finite are left out.
    """
    from scipy.stats import ks_2samp

    first, second = (values[np.isfinite(values)] for values in (np.asarray(before), np.asarray(now)))
    if len(first) == 0 or len(second) == 0:
        return math.nan, math.nan
    found = ks_2samp(first, second)
    return float(found.statistic), float(found.pvalue)


def _resampled_means(values: Array, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= 16:
        # Resampling right and wrong answers is drawing how many of each: the same distribution, and much faster.
        drawn = generator.multinomial(len(values), counts / len(values), size=RESAMPLES)
        return np.asarray(drawn @ distinct / len(values))
    # One resample at a time: all of them at once would not fit for a large test split.
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    return np.asarray(means)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
