"""Points of the curves within epochs: loss, accuracy, rate and gradient norm every so many optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.data.core.sums import Sums

Point = Callable[[int, dict[str, float]], None]

MOST_POINTS = 200
"""Points of a run with ``auto``."""
_LEAST_STEPS = 16
"""Between two points with ``auto``: of a fit of milliseconds they would take a noticeable part."""
_POINTS_BEFORE_TWICE_AS_FAR = 12
_FEW_EPOCHS = 50


class StepCurve:
    """Keeps a point every so many optimiser steps, as means over the samples since the point before.

    Where epochs are few and long, an epoch's first step is a point of its own: what a new series or a new order of the
    samples does to the loss shows there.

    Args:
        every: Number of optimiser steps between two points; ``auto`` for at most 200 points in the whole fit.
        on_point: Function called with the optimiser step (from 1) and the values at each point.

    Attributes:
        points: Pairs of step and value by name: ``step/loss``, ``step/accuracy`` (``step/mae`` of numbers),
            ``step/lr`` and ``step/grad_norm``, the length of the whole gradient before it is clipped.
        next: Step at which the next point is due.
        last: Number of optimiser steps in the whole fit, None where time alone ends it.
        epochs: Number of epochs in the whole fit, infinite where time alone ends it.
    """

    def __init__(self, every: int | str = "auto", on_point: Point | None = None) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.next = 1
        self._asked, self._on_point = every, on_point
        self._every = _LEAST_STEPS if every == "auto" else int(every)
        self._widens = False
        self._epoch_begins_alone = False
        self.last: int | None = None
        self.epochs = 0.0
        # Loss and hits that the epoch's sums held at the last point, and what earlier epochs add since then.
        self._base: tuple[Any, Any, int] = (0.0, 0.0, 0)
        self._carried: tuple[Any, Any, int] = (0.0, 0.0, 0)

    def begin(self, step: int, total: int | None, per_epoch: int) -> None:
        """Get ready for a fit.

        Args:
            step: Number of optimiser steps that were made before, of which the points are kept.
            total: Number of optimiser steps in the whole fit; None where time alone ends it.
            per_epoch: Number of optimiser steps in an epoch.
        """
        self.last = total
        self.epochs = math.inf if total is None else total / max(per_epoch, 1)
        alone = self.epochs <= _FEW_EPOCHS
        if self._asked == "auto" and total is not None:
            room = MOST_POINTS - (math.ceil(self.epochs) if alone else 0) - 1
            self._every = max(_LEAST_STEPS, -(-total // room))
        elif self._asked == "auto":
            self._widens = True
            self._every = max(self._every, _LEAST_STEPS)
        self._epoch_begins_alone = alone and per_epoch >= 2 * self._every
        self._set_next(step)

    def epoch_begins(self, step: int) -> None:
        """An epoch begins after ``step`` optimiser steps."""
        if self._epoch_begins_alone:
            self.next = step + 1

    def note(self, step: int, sums: Sums, rate: float, norm: float | None) -> None:
        """Keep a point.

        Args:
            step: Number of optimiser steps that were made, the one that the point is at included.
            sums: Sums of the running epoch.
            rate: Learning rate of that step.
            norm: Length of its gradient; None where no process holds it as a whole.
        """
        loss, first, count = _plus(_of(sums), self._carried)
        count -= self._base[2]
        if count:
            measure = "mae" if sums.spec.task == "regression" else "accuracy"
            values = {
                "step/loss": float(loss - self._base[0]) / count,
                f"step/{measure}": float(first - self._base[1]) / count,
                "step/lr": rate,
                **({} if norm is None else {"step/grad_norm": norm}),
            }
            for name, value in values.items():
                self.points.setdefault(name, []).append((step, value))
            if self._on_point is not None:
                self._on_point(step, values)
        self._base, self._carried = _of(sums), (0.0, 0.0, 0)
        if self._widens and len(self.points.get("step/lr", ())) % _POINTS_BEFORE_TWICE_AS_FAR == 0:
            self._every *= 2
        self._set_next(step)

    def epoch_ends(self, sums: Sums) -> None:
        """Keep what the sums hold since the last point, before they begin again."""
        loss, first, count = _plus(_of(sums), self._carried)
        self._carried = (loss - self._base[0], first - self._base[1], count - self._base[2])
        self._base = (0.0, 0.0, 0)

    def _set_next(self, step: int) -> None:
        self.next = step + self._every
        # The last point stands for nearly as many steps as the others: of a few, the loss would say little.
        if self.last is not None and step < self.last and self.next > self.last - self._every // 2:
            self.next = self.last

    def dump(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {
            "points": {name: torch.tensor(pairs, dtype=torch.float64) for name, pairs in self.points.items()},
            "base": [float(self._base[0]), float(self._base[1]), self._base[2]],
            "carried": [float(self._carried[0]), float(self._carried[1]), self._carried[2]],
            "every": self._every,
            "next": self.next,
        }

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`dump`, for a fit that goes on."""
        self.points = {
            name: [(int(step), value) for step, value in pairs.tolist()]
            for name, pairs in state["points"].items()
        }
        self._base = (state["base"][0], state["base"][1], int(state["base"][2]))
        self._carried = (state["carried"][0], state["carried"][1], int(state["carried"][2]))
        self._every, self.next = int(state["every"]), int(state["next"])


def gradient_norm(parameters: Iterable[Tensor], scale: float = 1.0) -> float:
    """Length of the whole gradient.

    Args:
        parameters: The weights, with their gradients.
        scale: What the gradients were multiplied with.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) / scale if gradients else 0.0


def _of(sums: Sums) -> tuple[Any, Any, int]:
    return sums.loss, sums.first, sums.count


def _plus(one: tuple[Any, Any, int], other: tuple[Any, Any, int]) -> tuple[Any, Any, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
