"""What each single prediction is judged by: whether it is right, how far it is off, how many bits it leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from pipeline.data.core.measures import log_losses
from pipeline.metrics import find

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pipeline.data.core.spec import Spec
    from pipeline.models.base import BaseModule

    Values = NDArray[Any]


def metric_of(spec: Spec) -> str:
    """What models of a task are compared by: a metric that is a mean over predictions.

    ``mae`` for numbers, ``bits_per_char`` for texts, ``hit_rate_at_K`` where K are recommended, else ``accuracy``.
    """
    if spec.task == "regression":
        return "mae"
    if spec.task == "multiclass" and spec.per_step:
        return "bits_per_char"
    return f"hit_rate_at_{spec.top_k}" if spec.task == "multiclass" and spec.top_k else "accuracy"


def metric_by(spec: Spec, objective: str) -> str | None:
    """What models of a task are compared by where a run's objective is given; None where that has no value by sample.

    ``log_loss`` of classes, and ``mse`` of numbers for it, ``rmse`` and ``r2``, which order models alike.

    Args:
        spec: The task.
        objective: Name of the run's objective, ``auto`` for that of the task.
    """
    own, asked = metric_of(spec), find(objective)
    if objective == "auto" or (asked is not None and asked.name == own):
        return own
    if asked is None or spec.per_step or spec.top_k or spec.input == "series":
        return None
    if spec.task == "regression":
        return "mse" if asked.name in ("mse", "rmse", "r2") else None
    return asked.name if asked.name == "log_loss" and spec.task in ("binary", "multiclass") else None


def known_of(model: BaseModule, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets of the predictions that can be judged, a row each."""
    return model.objective.known(logits, targets) if model.spec.per_step else (logits, targets)


def values_of(model: BaseModule, logits: Tensor, targets: Tensor) -> tuple[str, Values]:
    """Name of the metric that single samples are judged by, ``accuracy`` (0 or 1) or ``mae``, and its values."""
    logits, targets = known_of(model, logits, targets)
    if model.spec.task == "regression":
        error = (logits.reshape(len(targets), -1) - targets.reshape(len(targets), -1)).abs().mean(1)
        return "mae", error.double().numpy()
    if model.spec.task == "multilabel":
        # A sample is right where all of its labels are.
        return "accuracy", (model.objective.decided(logits) == targets.long()).all(1).numpy()
    decided = model.objective.decided(logits).reshape(-1).numpy()
    return "accuracy", (decided == targets.reshape(-1).long().numpy())


def judged_of(
    model: BaseModule, logits: Tensor, targets: Tensor, metric: str | None = None
) -> tuple[str, Values]:
    """Name of the metric that runs are compared by, and its value for each prediction: their mean is reported.

    Args:
        model: Model that gave the outputs.
        logits: Its outputs, (samples, …).
        targets: What is true, (samples, …).
        metric: One that :func:`metric_by` gives; None for that of the task.
    """
    metric = metric or metric_of(model.spec)
    outputs, true = known_of(model, logits, targets)
    if metric == "mse":
        squares = (outputs.double().reshape(len(true), -1) - true.double().reshape(len(true), -1)).square()
        return metric, squares.mean(1).numpy()
    if metric == "log_loss":
        p = model.objective.probabilities(outputs.double())
        return metric, log_losses(p, true.reshape(-1).long()).numpy()
    if metric == "bits_per_char":
        nats = torch.nn.functional.cross_entropy(outputs.double(), true, reduction="none")
        return metric, (nats / math.log(2)).numpy()
    if model.spec.top_k:
        hits = outputs.topk(min(model.spec.top_k, model.spec.outputs)).indices == true[:, None]
        return metric, hits.any(1).numpy()
    return values_of(model, logits, targets)
