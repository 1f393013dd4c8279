"""What trees are grown from, and what a growth came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.models.trees import Boosting, CatBoost
from pipeline.training.recorder import History
from pipeline.training.stopping import Stop

POINTS = 200
"""Most points of a curve that is recorded."""


@dataclass(frozen=True)
class Table:
    """Rows as trees take them.

    Args:
        x: (rows, columns), float32.
        y: (rows,), class numbers, or numbers in the target's unit.
        weights: (rows,), None for equal ones.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Grown:
    """What a growth came to.

    Args:
        rounds: Number of trees (for each class) that were kept.
        note: Why there are not more.
        history: Metrics by number of trees.
        facts: What the result says of the model beside its settings.
        cut: Whether its time was over before it was done.
    """

    rounds: int
    note: str
    history: History = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    cut: bool = False


def said(model: Boosting | CatBoost, grown: int, best: int, stop: Stop) -> str:
    """Why the growth of boosted trees ended, in words."""
    if stop.out_of_time:
        return f"still improving when its time ran out after {grown} trees"
    if best < grown or grown < model.n_estimators:
        return f"stopped improving after {best} trees"
    return f"still improving after {grown} trees: more by model.n_estimators"


def thinned(history: History, best: int) -> History:
    """At most :data:`POINTS` points of each curve, the best round among them."""
    thinned = {}
    for name, points in history.items():
        step = -(-len(points) // POINTS)
        thinned[name] = [
            point for point in points if point[0] % step == 0 or point[0] in (1, best, len(points))
        ]
    return thinned
