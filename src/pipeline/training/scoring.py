"""The figures that a model's outputs on a whole split come to, by scikit-learn's words and with its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import metrics
from pipeline.data.core.sums import Sums
from pipeline.errors import Diverged
from pipeline.models.base import BaseModule

NEED_EVERY_OUTPUT = (
    *("log_loss", "balanced_accuracy", "roc_auc", "average_precision"),
    *("r2", "mape", "median_absolute_error"),
)
"""Metrics that :func:`scores` gives beside those that a sum over batches gives."""


def needs_every_output(metric: str | None) -> bool:
    """Whether a metric (``val/roc_auc``) is none of those that are summed up batch by batch."""
    return metric is not None and metrics.with_slash(metric).partition("/")[2] in NEED_EVERY_OUTPUT


def scores(model: BaseModule, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """The task's metrics, those that need every output at once among them.

    Args:
        model: The model, which says what its outputs mean.
        logits: Its outputs, (samples, …).
        targets: What is true, (samples, …).

    Returns:
        Values by name: for classes ``loss`` (the training loss), ``accuracy``, ``f1`` (macro), ``roc_auc`` and
        ``average_precision`` (each the mean over the classes), ``balanced_accuracy`` and ``log_loss`` (of the
        probabilities as they are given out); for numbers ``loss``, ``mae``, ``mse``, ``rmse``, ``r2``,
        ``median_absolute_error``, ``mape`` where no true value is 0, and ``coverage``, the share of true values within
        the model's intervals, where it has some. For a target at each step those alone that are means over steps.

    Raises:
        Diverged: The outputs are no numbers: the last step before them spoilt the weights.
    """
    if not bool(logits.isfinite().all()):
        raise Diverged(
            "the trained model's outputs are NaN or infinite, though its training losses were numbers: its weights "
            "have become too large. Lower optimizer.lr, or clip with trainer.gradient_clip_val"
        )
    spec, objective = model.spec, model.objective
    sums = Sums(spec, confusion=True)
    loss = objective.loss(logits.to(model.device), targets.to(model.device)).cpu()
    sums.add(loss, logits, targets, objective.threshold())
    result = sums.metrics()
    if spec.per_step:
        return result
    if spec.task == "regression":
        if model.settled.half_width is not None:
            predicted = logits.reshape(-1).double()
            half = torch.from_numpy(model.settled.half_widths(predicted.numpy()))
            distance = (predicted - targets.reshape(-1).double()).abs()
            result["coverage"] = float((distance <= half).double().mean())
        return result | of_numbers(logits, targets)
    labels = targets.reshape(-1).long()
    predicted = objective.decided(logits)
    if model.settled.costs:
        # Not the most probable class is predicted.
        sums.reset()
        sums.add(loss, F.one_hot(predicted, spec.outputs).float(), targets, 0.0)
        result |= {name: value for name, value in sums.metrics().items() if not name.startswith("hit_rate")}
    result |= ranking(objective.probabilities(logits), targets)
    result["balanced_accuracy"] = balanced_accuracy(predicted, labels)
    result["log_loss"] = log_loss(objective.probabilities(logits.double()), labels)
    return result


def of_numbers(said: Tensor, true: Tensor) -> dict[str, float]:
    """R² where the true values differ, the median absolute error and, where no true value is 0, the mean absolute error
    as a share of the truth."""
    values = true.reshape(len(true), -1).double()
    said = said.reshape(values.shape).double()
    spread = float((values - values.mean(0)).square().sum())
    error = said - values
    # Of values that are all the same, one among them, R² is undefined.
    result = {"r2": 1 - float(error.square().sum()) / spread} if spread else {}
    result["median_absolute_error"] = float(np.median(error.abs().numpy(), axis=0).mean())
    if bool((values != 0).all()):
        result["mape"] = float((error.abs() / values.abs()).mean())
    return result


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of the share of their samples that were found."""
    found: list[Tensor] = [(predicted[labels == c] == c).double().mean() for c in labels.unique()]
    return float(torch.stack(found).mean())


def log_loss(p: Tensor, labels: Tensor) -> float:
    """Mean of minus the logarithm of the true class's probability.

    As in scikit-learn, a probability counts as no less than the smallest difference of two numbers near 1.

    Args:
        p: Probabilities, (samples, classes), as float64.
        labels: Class numbers, (samples,).
    """
    least = torch.finfo(p.dtype).eps
    return float(F.nll_loss(p.clamp(least, 1 - least).log(), labels))


def ranking(p: Tensor, targets: Tensor) -> dict[str, float]:
    """ROC-AUC and average precision, each the mean over the classes that occur beside others."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores_ = targets.long().numpy(), p.double().numpy()
    classes: Any = [1] if scores_.shape[1] == 2 else range(scores_.shape[1])
    occurring = [c for c in classes if 0 < (labels == c).sum() < len(labels)]
    if not occurring:
        return {}
    area = [roc_auc_score(labels == c, scores_[:, c]) for c in occurring]
    average = [average_precision_score(labels == c, scores_[:, c]) for c in occurring]
    return {"roc_auc": float(sum(area) / len(area)), "average_precision": float(sum(average) / len(average))}
