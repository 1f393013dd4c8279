"""Metrics of answers that are all there: scikit-learn's words and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


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
    """Mean of :func:`log_losses`."""
    return float(log_losses(p, labels).mean())


def log_losses(p: Tensor, labels: Tensor) -> Tensor:
    """Minus the logarithm of the true class's probability, (samples,).

    As in scikit-learn, a probability counts as no less than the smallest difference of two numbers near 1.

    Args:
        p: Probabilities, (samples, classes), as float64.
        labels: Class numbers, (samples,).
    """
    least = torch.finfo(p.dtype).eps
    return F.nll_loss(p.clamp(least, 1 - least).log(), labels, reduction="none")


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


def of_labels(p: Tensor, said: Tensor, true: Tensor) -> dict[str, float]:
    """Figures of samples with several labels, by scikit-learn's words and with its values.

    Args:
        p: Probability of each label, (samples, labels).
        said: Whether each label is predicted, likewise.
        true: Whether each sample has it, likewise.

    Returns:
        ``accuracy`` (the share of samples whose labels are all right), ``f1`` (the mean over the labels that occur or
        are said: macro), ``f1_micro`` (of all labels together), ``roc_auc`` and ``average_precision`` (each the mean
        over the labels that some samples have and some do not) and ``log_loss`` (over samples and labels).
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    said, true = said.bool(), true > 0.5
    hits, total = (said & true).sum(0).double(), (said.sum(0) + true.sum(0)).double()
    occurs = total > 0
    least = torch.finfo(torch.float64).eps
    p = p.double().clamp(least, 1 - least)
    found = {
        "accuracy": float((said == true).all(1).double().mean()),
        "f1": float((2 * hits[occurs] / total[occurs]).mean()) if bool(occurs.any()) else 1.0,
        "f1_micro": float(2 * hits.sum() / total.sum()) if bool(occurs.any()) else 1.0,
        "log_loss": float(F.binary_cross_entropy(p, true.double())),
    }
    told = torch.nonzero(true.any(0) & ~true.all(0))[:, 0].tolist()
    if told:
        scored, labels = p.numpy(), true.numpy()
        areas = [roc_auc_score(labels[:, k], scored[:, k]) for k in told]
        averages = [average_precision_score(labels[:, k], scored[:, k]) for k in told]
        found |= {"roc_auc": float(np.mean(areas)), "average_precision": float(np.mean(averages))}
    return found
