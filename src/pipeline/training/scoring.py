"""The figures that a model's outputs on a whole split come to, by scikit-learn's words and with its values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline import metrics
from pipeline.data.core.measures import balanced_accuracy, log_loss, of_labels, of_numbers, ranking
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
        the model's intervals, where it has some; for several labels a sample ``loss`` and those of
        :func:`~pipeline.data.core.measures.of_labels`. For a target at each step those alone that are means over steps.

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
    if spec.task == "multilabel":
        p = objective.probabilities(logits.double())
        return result | of_labels(p, objective.decided(logits), targets)
    labels = targets.reshape(-1).long()
    predicted = objective.decided(logits)
    if model.settled.costs:
        # Not the most probable class is predicted.
        sums.reset()
        sums.add(loss, F.one_hot(predicted, spec.outputs).float(), targets, 0.0)
        result |= {name: value for name, value in sums.metrics().items() if not name.startswith("hit_rate")}
    p = objective.probabilities(logits.double())
    result |= ranking(p, targets)
    result["balanced_accuracy"] = balanced_accuracy(predicted, labels)
    result["log_loss"] = log_loss(p, labels)
    return result
