"""How much better a model is than a baseline, with an interval that knows of more than the test samples' noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics import four_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

CONFIDENCE = 0.95
_DISAGREEMENT = 0.95
"""How sure it must be that two splits disagree before that counts."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval.

    Args:
        value: The estimate; NaN where there were no samples.
        low, high: Ends of the interval; NaN where there are too few samples for one.
        confidence: Share of such intervals that hold the true value.
    """

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        low, high = four_places(self.low), four_places(self.high)
        return f"{four_places(self.value)} ({self.confidence:.0%} interval {low} to {high})"


@dataclass(frozen=True)
class Gain(Interval):
    """How much better one predictor is than another; below 0 it is worse.

    Args:
        error: Standard error that the interval is made of; the interval is to hold the gain of the kind of model on new
            samples.
    """

    error: float = math.nan

    @property
    def says(self) -> str:
        """``beats``, ``is worse than`` or ``cannot be told apart from``."""
        if self.low > 0:
            return "beats"
        return "is worse than" if self.high < 0 else "cannot be told apart from"


@dataclass(frozen=True)
class Sampled:
    """Gains on single samples of a split.

    Args:
        gains: Gain on each prediction, (predictions,): for hits -1, 0 or 1.
        strata: Class of each, (predictions,); None where there are no classes.
    """

    gains: Array
    strata: Array | None = None


def gain_of(
    test: Sampled, train_samples: int, other: Sampled | None = None, confidence: float = CONFIDENCE
) -> Gain:
    """The mean gain with its interval.

    Three things make the interval wider than it is for one model on endless data:

    - The samples of the test: with the variance s² of the paired gains, s² / n_test. For gains that are hits, centre
      and variance are those of Bonett and Price (2012, *Adjusted Wald Confidence Interval for a Difference of Binomial
      Proportions Based on Paired Data*, J. Educ. Behav. Stat. 37:479-488), which hold for a handful of samples;
      else Student's t with n_test - 1 degrees of freedom.
    - The training set and the seed: another one gives another model. Nadeau and Bengio (2003, *Inference for the
      Generalization Error*, Machine Learning 52:239-281, section 3) have the variance of one test grow by the factor
      1 + n_test / n_train; it is s² · (1 / n_test + 1 / n_train) then.
    - What moves whole groups of samples together, like labels in training that say nothing of those in the test: if
      the gains on the validation split (``other``) differ from those on the test split by more than the samples'
      noise, half of the squared difference is the variance between splits, as in the random-effects estimate of
      DerSimonian and Laird (1986, *Meta-Analysis in Clinical Trials*, Controlled Clinical Trials 7:177-188) for two
      studies, and is added. It is looked for in the whole and class by class, where it takes several forms at once.

    Args:
        test: Gains on the samples that it is judged by.
        train_samples: Number of training samples.
        other: Gains on samples of another split that was not trained on, None where there is none.
        confidence: Confidence of the interval, between 0 and 1.
    """
    from scipy.stats import norm, t

    gains = np.asarray(test.gains, dtype=np.float64)
    n = len(gains)
    value = float(gains.mean()) if n else math.nan
    if n < 2 or not math.isfinite(value):
        return Gain(value, math.nan, math.nan, confidence)
    centre, variance = _hits(gains) if _are_hits(gains) else (value, float(gains.var(ddof=1)))
    tail = (1 + confidence) / 2
    far = float(norm.ppf(tail) if _are_hits(gains) else t.ppf(tail, n - 1))
    error = math.sqrt(variance * (1 / n + 1 / max(1, train_samples)) + between(test, other))
    return Gain(value, centre - far * error, centre + far * error, confidence, error)


def between(test: Sampled, other: Sampled | None) -> float:
    """The variance of a mean gain between splits, beyond the samples' noise; 0 where the two splits agree."""
    if other is None or min(len(test.gains), len(other.gains)) < 2:
        return 0.0
    whole = _between(test.gains, other.gains, np.zeros(len(test.gains)), np.zeros(len(other.gains)))
    if test.strata is None or other.strata is None:
        return whole
    return max(whole, _between(test.gains, other.gains, test.strata, other.strata))


def _between(first: Array, second: Array, strata: Array, other_strata: Array) -> float:
    from scipy.stats import chi2

    names = np.intersect1d(strata, other_strata)
    shares, apart, counts, others, within = [], [], [], [], 0.0
    for name in names:
        a = first[strata == name].astype(np.float64)
        b = second[other_strata == name].astype(np.float64)
        shares.append(len(a) / len(first))
        apart.append(float(a.mean() - b.mean()))
        counts.append(len(a))
        others.append(len(b))
        within += float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
    freedom = sum(counts) + sum(others) - 2 * len(names)
    if freedom <= 0:
        return 0.0
    share, difference = np.array(shares), np.array(apart)
    noise = within / freedom * (1 / np.array(counts) + 1 / np.array(others))
    seen, expected = float((share**2 * difference**2).sum()), float((share**2 * noise).sum())
    if seen <= expected * float(chi2.ppf(_DISAGREEMENT, len(names))) / len(names):
        return 0.0
    return (seen - expected) / 2


def gain_of_fits(
    gains: Sequence[float], test_share: float, errors: Sequence[float] = (), confidence: float = CONFIDENCE
) -> Gain:
    """The mean gain of several fits with its interval: the corrected resampled t-test.

    With J fits whose gains have the variance S², the variance of their mean is S² · (1 / J + n_test / n_train): the
    fits of a cross-validation learn from much the same samples (Nadeau and Bengio 2003, section 3). Fits that differ in
    their seeds are tested on one test split, so that their mean has its noise in full: S² / J beside the mean square
    of their own standard errors.

    Args:
        gains: Gain of each fit.
        test_share: Number of test samples for each training sample, for fits to other samples each; 0 for other seeds.
        errors: Standard error of each gain where all are tested on the same samples.
        confidence: Confidence of the interval.
    """
    from scipy.stats import t

    values = np.asarray(gains, dtype=np.float64)
    value = float(values.mean()) if len(values) else math.nan
    if len(values) < 2 or not math.isfinite(value):
        return Gain(value, math.nan, math.nan, confidence)
    own = float(values.var(ddof=1)) * (1 / len(values) + test_share)
    shared = float(np.square(np.asarray(errors)).mean()) if len(errors) else 0.0
    total = own + shared
    error = math.sqrt(total)
    # Satterthwaite: the noise of the samples is well known, that between a few fits is not.
    freedom = (len(values) - 1) * (total / own) ** 2 if own > 0 else math.inf
    far = float(t.ppf((1 + confidence) / 2, min(freedom, 1e9)))
    return Gain(value, value - far * error, value + far * error, confidence, error)


def gain_of_shares(model: float, baseline: float, samples: int, train_samples: int) -> Gain:
    """The gain in a share of hits where only the two shares are known, with the widest interval that any pairing has.

    Args:
        model: Share of hits of the model.
        baseline: Share of hits of the baseline on the same samples.
        samples: Number of samples.
        train_samples: Number of training samples.
    """
    up = round(samples * min(model, 1 - baseline))
    down = up - round(samples * (model - baseline))
    gains = np.zeros(samples)
    gains[:up], gains[up : up + max(0, down)] = 1, -1
    found = gain_of(Sampled(gains), train_samples)
    return Gain(model - baseline, found.low, found.high, found.confidence, found.error)


def _are_hits(gains: Array) -> bool:
    return bool(np.isin(gains, (-1.0, 0.0, 1.0)).all())


def _hits(gains: Array) -> tuple[float, float]:
    """Centre and variance of paired differences of hits, a sample more of each kind of disagreement than there was."""
    n = len(gains) + 2
    up, down = (float((gains > 0).sum()) + 1) / n, (float((gains < 0).sum()) + 1) / n
    return up - down, (up + down - (up - down) ** 2) * len(gains) / n
