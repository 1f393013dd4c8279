"""Looking at a test before its end without crying wolf: bounds by alpha spending, and what they cost in samples.

At look k the statistic Z is held to a bound c_k, so chosen that without any difference the chance of passing one of the
bounds by look k is what has been spent of the level by then: 4 (1 − Φ(z_{1−α/4} / √t)) of a two-sided level α at the
share t of the samples, which is O'Brien and Fleming's (1979) way of stopping as Lan and DeMets (Biometrika 70, 1983,
659–663) spend it. The chances are integrals over the looks before (Armitage, McPherson and Rowe, JRSS A 132, 1969,
235–244).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_NODES = 160
_FAR = 8.0
"""Standard errors beyond which nothing happens."""


def spent(fraction: float, level: float = 0.05) -> float:
    """What has been spent of a two-sided level when a share of the samples is there."""
    from scipy.stats import norm

    return float(min(level, 4 * norm.sf(norm.isf(level / 4) / np.sqrt(fraction))))


def bounds(fractions: Sequence[float], level: float = 0.05) -> list[float]:
    """The bound of \\|Z\\| at each look.

    Args:
        fractions: Share of all samples that is there at each look, ascending, the last 1.
        level: Chance of calling any look a difference where there is none, both sides together.

    Example:
        >>> [round(bound, 2) for bound in bounds([0.5, 1.0])]
        [2.96, 1.97]
    """
    from scipy.optimize import brentq

    found: list[float] = []
    before = 0.0
    for place, fraction in enumerate(fractions):
        wanted = spent(fraction, level) - before
        before += wanted

        def excess(bound: float, place: int = place, wanted: float = wanted) -> float:
            return crossing(fractions[: place + 1], [*found, bound])[-1] - wanted

        found.append(float(brentq(excess, 0.5, _FAR, xtol=1e-9)) if excess(_FAR) < 0 else _FAR)
    return found


def crossing(fractions: Sequence[float], limits: Sequence[float], drift: float = 0.0) -> list[float]:
    """The chance of stopping at each look: \\|Z\\| passes its limit there for the first time.

    Args:
        fractions: Share of all samples that is there at each look, ascending.
        limits: Limit at each look.
        drift: Mean of Z when all samples are there.
    """
    from scipy.stats import norm

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    points, density, before = np.zeros(1), np.ones(1), 0.0
    found = []
    for fraction, limit in zip(fractions, limits, strict=True):
        step = np.sqrt(fraction - before)
        middle, edge = points + drift * (fraction - before), limit * np.sqrt(fraction)
        found.append(float(density @ (norm.sf((edge - middle) / step) + norm.cdf((-edge - middle) / step))))
        # Beyond eight standard errors around the mean there is nothing to integrate.
        low = max(-edge, drift * fraction - _FAR * np.sqrt(fraction))
        high = min(edge, drift * fraction + _FAR * np.sqrt(fraction))
        at = (high + low) / 2 + (high - low) / 2 * nodes
        density = (norm.pdf((at[:, None] - middle) / step) / step) @ density * weights * (high - low) / 2
        points, before = at, fraction
    return found


def needed(deviation: float, effect: float, level: float = 0.05, power: float = 0.8) -> int:
    """Samples in each of two groups for one look at their end to show a difference of means.

    Args:
        deviation: Standard deviation of a sample.
        effect: Difference that is not to be missed.
        level: Two-sided level of the test.
        power: Chance of showing that difference.
    """
    from scipy.stats import norm

    return int(np.ceil(2 * ((norm.isf(level / 2) + norm.ppf(power)) * deviation / effect) ** 2))


def dearer(
    fractions: Sequence[float], limits: Sequence[float], level: float = 0.05, power: float = 0.8
) -> float:
    """By what factor several looks need more samples than one look, for the same power."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    drift = brentq(lambda mean: sum(crossing(fractions, limits, mean)) - power, 0.1, 10.0)
    return float((drift / (norm.isf(level / 2) + norm.ppf(power))) ** 2)
