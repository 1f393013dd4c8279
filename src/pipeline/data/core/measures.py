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
