"""Sums over batches that become an epoch's metrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.spec import Spec


class Sums:
    """Running sums of loss and hits, read once an epoch.

    On the CPU they are Python floats (reading a scalar is free there, and doubles lose nothing); on a device they stay
    tensors there, since reading one would wait for everything queued before it.

    Args:
        spec: Description of the task, which decides what is summed.
        confusion: Whether to count as well which class was taken for which (for macro-F1; up to 256 classes).
    """

    def __init__(self, spec: Spec, confusion: bool = False) -> None:
        self.spec = spec
        self.classes = 2 if spec.task == "binary" else spec.outputs
        classes = spec.task in ("binary", "multiclass")
        self.counts_confusion = confusion and classes and self.classes <= 256
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        self.count = 0
        self.loss: Any = 0.0
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.third: Any = 0.0
        self.last_loss: float | None = None
        self.confusion: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, y: Tensor, threshold: float) -> None:
        """Count one batch: its mean loss, its logits and its targets."""
        if self.spec.per_step:
            logits, y = logits.reshape(-1, logits.shape[-1]), y.reshape(-1)
            if self.spec.task != "regression" and bool((y < 0).any()):
                logits, y = logits[y >= 0], y[y >= 0]
        count = len(y)
        first: Any
        second: Any
        third: Any = None
        if self.spec.task == "regression" and y.numel() == 1 and loss.device.type == "cpu":
            # The same numbers as below: six operations on tensors of one element take longer than a step of SGD.
            difference = np.float32(logits.item()) - np.float32(y.item())
            first, second = abs(difference), difference * difference
        elif self.spec.task == "regression":
            error = logits.view_as(y) - y
            first, second = error.abs().sum() / self.spec.outputs, error.square().sum() / self.spec.outputs
        elif self.spec.task == "multilabel":
            said, true = logits > threshold, y > 0.5
            first = (said == true).all(1).sum()
            second, third = 2 * (said & true).sum(), said.sum() + true.sum()
        else:
            predicted = logits.argmax(-1) if self.spec.task == "multiclass" else logits.view_as(y) > threshold
            first, second = (predicted == y).sum(), None
            if self.spec.top_k:
                second = (logits.topk(self.spec.top_k).indices == y[:, None]).sum()
            if self.counts_confusion:
                cells = y.long() * self.classes + predicted.long()
                counts = torch.bincount(cells, minlength=self.classes**2)
                self.confusion = counts if self.confusion is None else self.confusion + counts
        self.count += count
        if loss.device.type == "cpu":
            self.last_loss = float(loss)
            self.loss += self.last_loss * count
            self.first += float(first)
            if second is not None:
                self.second += float(second)
            if third is not None:
                self.third += float(third)
        else:
            self.loss = self.loss + loss.double() * count
            self.first = self.first + first.double()
            if second is not None:
                self.second = self.second + second.double()
            if third is not None:
                self.third = self.third + third.double()

    def mean_loss(self) -> float:
        """Mean loss over what was counted, NaN if nothing was."""
        return float(self.loss) / self.count if self.count else math.nan

    def metrics(self) -> dict[str, float]:
        """The epoch's metrics by name."""
        if not self.count:
            return {}
        result = {"loss": self.mean_loss()}
        if self.spec.task == "regression":
            result |= {"mae": float(self.first) / self.count, "mse": float(self.second) / self.count}
            result["rmse"] = math.sqrt(result["mse"])
        else:
            result["accuracy"] = float(self.first) / self.count
            if self.spec.top_k:
                result[f"hit_rate_at_{self.spec.top_k}"] = float(self.second) / self.count
            if self.spec.task == "multilabel":
                # Where there are no labels and none is said, nothing is wrong.
                result["f1_micro"] = float(self.second) / float(self.third) if float(self.third) else 1.0
        if self.confusion is not None:
            result["f1"] = macro_f1(self.confusion.view(self.classes, self.classes))
        if self.spec.per_step and self.spec.task == "multiclass":
            result["bits_per_char"] = result["loss"] / math.log(2)
        return result

    def reduce(self, strategy: Any) -> None:
        """Add up the sums of all processes."""
        sums = (self.loss, self.first, self.second, self.third)
        values = torch.tensor([self.count, *map(float, sums)], dtype=torch.float64)
        values = strategy.reduce(values.to(strategy.root_device), reduce_op="sum").cpu()
        self.count = int(values[0])
        self.loss, self.first, self.second, self.third = map(float, values[1:])

    def dump(self) -> dict[str, Any]:
        """Plain values, for a checkpoint in mid-epoch."""
        return {
            "count": self.count,
            "loss": float(self.loss),
            "first": float(self.first),
            "second": float(self.second),
            "third": float(self.third),
            "last_loss": self.last_loss,
        }

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`dump`."""
        self.count, self.loss, self.first = state["count"], state["loss"], state["first"]
        self.second, self.last_loss = state["second"], state["last_loss"]
        self.third = state.get("third", 0.0)


def macro_f1(confusion: Tensor) -> float:
    """Mean over the classes that occur of F1 = 2·TP / (2·TP + FP + FN); rows are true classes."""
    counts = confusion.double()
    hits = counts.diagonal()
    total = counts.sum(0) + counts.sum(1)
    occurs = total > 0
    return float((2 * hits[occurs] / total[occurs]).mean())
