"""How sure a trained model is, settled on validation data after its fit: what stands beside its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_ROWS = ("costs", "widths")
"""What is a table of numbers."""


@dataclass(frozen=True)
class Settled:
    """How a model's outputs are read. Its training knows nothing of it.

    Args:
        temperature: What logits are divided by before they become probabilities (Guo et al. 2017); above 1 where the
            model is too sure of itself.
        threshold: Probability of the second of two classes above which it is predicted.
        costs: Cost of each mistake, a row for each true class and a column for each predicted one; the class with the
            least expected cost is predicted. Empty for the most probable one. Of two classes the threshold says it.
        level: Share of true values that an interval is to hold, None where there are no intervals.
        half_width: Distance from a predicted number to the ends of its interval, in the target's unit; where intervals
            are not equally wide, the one in the middle.
        widths: Where they are not, (predicted number, distance) pairs, between which distances lie on a line; below the
            first and above the last they stay the same. Empty for equal ones.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    costs: tuple[tuple[float, ...], ...] = ()
    level: float | None = None
    half_width: float | None = None
    widths: tuple[tuple[float, float], ...] = ()

    def half_widths(self, predicted: np.ndarray) -> np.ndarray:
        """Distance of each predicted number to the ends of its interval, (samples,)."""
        predicted = np.asarray(predicted, dtype=np.float64)
        if not self.widths:
            return np.full(predicted.shape, math.nan if self.half_width is None else self.half_width)
        numbers, distances = zip(*self.widths, strict=True)
        found: np.ndarray = np.interp(predicted, numbers, distances)
        return found

    @property
    def logit(self) -> float:
        """The logit, as the model puts it out, above which the second of two classes is predicted."""
        if self.threshold in (0.0, 1.0):
            return math.inf if self.threshold else -math.inf
        return self.temperature * math.log(self.threshold / (1 - self.threshold))

    def to_dict(self) -> dict[str, Any]:
        """What differs from the model as it was trained, as JSON values."""
        plain = asdict(Settled())
        values = {name: value for name, value in asdict(self).items() if value != plain[name]}
        for name in _ROWS:
            if name in values:
                values[name] = [list(row) for row in values[name]]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Settled:
        """The inverse of :meth:`to_dict`; None is a model that was saved before there was any of this."""
        values = dict(values or {})
        for name in _ROWS:
            if name in values:
                values[name] = tuple(tuple(float(value) for value in row) for row in values[name])
        return cls(**values)
