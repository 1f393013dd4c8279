"""What a forecast has to beat: the same as a season ago, and the same as the last time."""

from __future__ import annotations

import math

from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows


def as_last_season(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Each step as the same step of the last season that is known."""
    return _metrics(last_season(evaluate, spec), evaluate, spec)


def as_last_time(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Every step ahead as the last known one."""
    x = _inputs(evaluate)
    last = x[:, -spec.horizon - 1 : -spec.horizon, 0].expand(-1, spec.horizon)
    return _metrics(_in_units(last, x, spec), evaluate, spec)


def last_season(split: Rows, spec: Spec) -> Tensor:
    """The target of each step a season before, in its own units, (samples, horizon)."""
    x = _inputs(split)
    return _in_units(x[:, -spec.horizon :, 0], x, spec)


def _inputs(split: Rows) -> Tensor:
    assert isinstance(split.x, Tensor)
    return split.x.double()


def _in_units(values: Tensor, x: Tensor, spec: Spec) -> Tensor:
    return (values * x[:, -1:, -1] + x[:, -1:, -2]) * spec.target_std


def _metrics(said: Tensor, evaluate: Rows, spec: Spec) -> dict[str, float]:
    error = said - evaluate.y.double()
    mse = float(error.square().mean())
    return {
        "mae": float(error.abs().mean()),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "loss": mse / spec.target_std**2,
    }
