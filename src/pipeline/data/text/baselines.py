"""Baselines for the next character: always the most frequent one, and what usually follows the last one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows


def most_frequent_character(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """Always the character most frequent in training; its loss is that of the training frequencies."""
    counts = torch.bincount(train.y.reshape(-1), minlength=spec.outputs).double()
    targets = evaluate.y.reshape(-1)
    return _metrics(_log_probabilities(counts).expand(len(targets), -1), targets)


def bigram(train: Rows, evaluate: Rows, spec: Spec) -> dict[str, float]:
    """The character that most often followed the last one in training; every pair counts once more."""
    cells = _inputs(train) * spec.outputs + train.y.reshape(-1)
    counts = torch.bincount(cells, minlength=spec.outputs**2).view(spec.outputs, spec.outputs).double()
    return _metrics(_log_probabilities(counts)[_inputs(evaluate)], evaluate.y.reshape(-1))


def _inputs(split: Rows) -> Tensor:
    assert isinstance(split.x, Tensor)
    return split.x.reshape(-1)


def _log_probabilities(counts: Tensor) -> Tensor:
    # What never occurred still gets a chance (Laplace), or the loss would be infinite.
    return ((counts + 1) / (counts + 1).sum(-1, keepdim=True)).log()


def _metrics(log_p: Tensor, targets: Tensor) -> dict[str, float]:
    loss = -float(log_p.gather(1, targets[:, None]).mean())
    accuracy = float((log_p.argmax(1) == targets).double().mean())
    return {"accuracy": accuracy, "loss": loss, "bits_per_char": loss / math.log(2)}
