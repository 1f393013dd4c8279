"""Common-sense baselines: what a model has to beat before it has learnt anything.

A baseline is a function of the training split, the split to predict and the spec; it gives metrics under the names
that models' metrics have. A data module may bring its own (``DataModule.baselines``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.core.measures import (
    balanced_accuracy,
    log_loss,
    log_losses,
    of_labels,
    of_numbers,
    ranking,
)
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.core.sums import macro_f1

Baseline = Callable[[Rows, Rows, Spec], dict[str, float]]


def defaults(spec: Spec) -> dict[str, Baseline]:
    """The baselines for a kind of task; the first one is the common-sense one."""
    return {"mean": mean} if spec.task == "regression" else {"majority": majority}


def majority(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Always the class most frequent in training; its loss is that of predicting the training frequencies.

    Of several labels a sample, always those that are together most often.
    """
    if spec.task == "multilabel":
        return _usual_labels(train, evaluate)
    classes = 2 if spec.task == "binary" else spec.outputs
    known, targets = _labels(train.y), _labels(evaluate.y)
    counts = torch.bincount(known, minlength=classes).double()
    predicted = int(counts.argmax())
    log_p = _log_frequencies(train, spec)
    confusion = torch.zeros(classes, classes)
    confusion[:, predicted] = torch.bincount(targets, minlength=classes).float()
    loss = float(-log_p[targets].mean())
    metrics = {
        "accuracy": float((targets == predicted).double().mean()),
        "loss": loss,
        "f1": macro_f1(confusion),
    }
    if spec.per_step:
        return metrics | ({"bits_per_char": loss / math.log(2)} if spec.task == "multiclass" else {})
    p = log_p.exp().expand(len(targets), classes)
    metrics["log_loss"] = log_loss(p, targets)
    metrics["balanced_accuracy"] = balanced_accuracy(torch.full_like(targets, predicted), targets)
    return metrics | ranking(p, targets)


def most_frequent_set(y: Tensor) -> Tensor:
    """The labels that samples have together most often, (labels,), of targets (samples, labels)."""
    sets, counts = torch.unique(y, dim=0, return_counts=True)
    most: Tensor = sets[int(counts.argmax())]
    return most


def _usual_labels(train: Rows, evaluate: Rows) -> dict[str, float]:
    p = ((train.y.double().sum(0) + 1) / (len(train.y) + 2)).expand(evaluate.y.shape)
    found = of_labels(p, most_frequent_set(train.y).expand(evaluate.y.shape), evaluate.y)
    return found | {"loss": found["log_loss"]}


def values(train: Rows, evaluate: Rows, spec: Spec) -> Tensor:
    """What the first of :func:`defaults` scores on each prediction, for paired tests.

    Returns:
        For each prediction whether the most frequent class is right, the error of the mean, or for a class at each
        step the bits that its frequency in training leaves.
    """
    if spec.task == "regression":
        known, targets = (split.y.double().reshape(-1, spec.outputs) for split in (train, evaluate))
        return (targets - known.mean(0)).abs().mean(1)
    if spec.task == "multilabel":
        return (evaluate.y == most_frequent_set(train.y)).all(1)
    known, targets = _labels(train.y), _labels(evaluate.y)
    counts = torch.bincount(known, minlength=2 if spec.task == "binary" else spec.outputs).double()
    if spec.per_step and spec.task == "multiclass":
        return -((counts + 1) / (counts + 1).sum()).log2()[targets]
    return targets == int(counts.argmax())


def losses(train: Rows, evaluate: Rows, spec: Spec, metric: str) -> Tensor:
    """What the first of :func:`defaults` loses on each sample, (samples,).

    Args:
        train: The training split.
        evaluate: The split to predict.
        spec: The task.
        metric: ``mse`` of numbers; ``log_loss`` of classes, of which training's frequencies are predicted.
    """
    if metric == "mse":
        known, targets = (split.y.double().reshape(-1, spec.outputs) for split in (train, evaluate))
        return (targets - known.mean(0)).square().mean(1)
    labels = _labels(evaluate.y)
    return log_losses(_log_frequencies(train, spec).exp().expand(len(labels), -1), labels)


def _log_frequencies(train: Rows, spec: Spec) -> Tensor:
    classes = 2 if spec.task == "binary" else spec.outputs
    counts = torch.bincount(_labels(train.y), minlength=classes).double()
    # A class that never occurs in training still gets a chance (Laplace), or the loss would be infinite.
    return ((counts + 1) / (counts.sum() + classes)).log()


def values_of(baseline: Baseline, train: Rows, evaluate: Rows, spec: Spec) -> Tensor | None:
    """What one of the baselines of this file scores on each prediction; None for those that are not of this file."""
    if baseline is linear_regression and spec.task == "regression":
        return _linear_errors(train, evaluate).abs().mean(1)
    return values(train, evaluate, spec) if baseline in (mean, majority) else None


def mean(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Always the mean of the training targets."""
    return _of_errors(train.y.double().mean(0) - evaluate.y.double(), evaluate, spec)


def _of_errors(error: Tensor, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Metrics of predicted numbers, from prediction minus truth."""
    mse = float(error.square().mean())
    found = {
        "mae": float(error.abs().mean()),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "loss": mse / spec.target_std**2,
    }
    if spec.per_step:
        return found
    return found | of_numbers(evaluate.y.double().reshape(error.shape) + error, evaluate.y)


def linear_regression(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Ordinary least squares on the inputs as the model sees them."""
    return _of_errors(_linear_errors(train, evaluate), evaluate, spec)


def _linear_errors(train: Rows, evaluate: Rows) -> Tensor:
    inputs, targets = _design(train), train.y.double().view(len(train), -1)
    weights: Tensor = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution
    return _design(evaluate) @ weights - evaluate.y.double().view(len(evaluate), -1)


def _design(split: Rows) -> Tensor:
    x = split.take(torch.arange(len(split)))[0].double().flatten(1)
    return torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)


def _labels(y: Tensor) -> Tensor:
    flat = y.reshape(-1)
    return flat[flat >= 0].long()
