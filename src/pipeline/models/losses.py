"""A loss by its class: ``model.loss={_target_: torch.nn.HuberLoss, delta: 2}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import build
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError

ELEMENTWISE = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
"""Losses of numbers; for classes they hold each output against 1 for the true class and 0 for the others."""
_INSTEAD = {
    nn.NLLLoss: "torch.nn.CrossEntropyLoss, which takes logits",
    nn.BCELoss: "torch.nn.BCEWithLogitsLoss, which takes logits",
}


class LossOfClass:
    """A loss of torch.nn, or of one's own, on a model's outputs and the targets.

    Args:
        node: Description of the loss: ``_target_`` and the arguments of its constructor.
        spec: The task; numbers are held against each other in the target's standard deviations.

    Raises:
        UserError: It is no loss, or not one of what models of this task give.
    """

    def __init__(self, node: Mapping[str, Any], spec: Spec) -> None:
        self.spec, self.name = spec, str(node.get("_target_"))
        self.module = build(node, key="model.loss")
        if not isinstance(self.module, nn.Module):
            raise UserError(f"model.loss={self.name}: expected a loss, like torch.nn.HuberLoss")
        if (kind := type(self.module)) in _INSTEAD:
            raise UserError(f"model.loss={self.name}: models give logits; use {_INSTEAD[kind]}")
        if getattr(self.module, "reduction", "mean") != "mean":
            raise UserError(
                f"model.loss.reduction={self.module.reduction}: expected mean, the mean over a batch's samples"
            )
        if spec.class_weights:
            raise UserError(
                f"data.balance=class_weights: model.loss={self.name} has weights of its own (weight, pos_weight); "
                "give them there, or use data.balance=oversample"
            )

    @property
    def elementwise(self) -> bool:
        """Whether it compares numbers: for classes the outputs then are probabilities themselves."""
        return isinstance(self.module, ELEMENTWISE)

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of outputs (samples, outputs) and targets."""
        spec = self.spec
        if spec.task == "multiclass" and self.elementwise:
            y = F.one_hot(y, spec.outputs).to(outputs.dtype)
        elif spec.task != "multiclass":
            outputs = outputs.view_as(y)
        if spec.task == "regression" and spec.target_std != 1.0:
            outputs, y = outputs / spec.target_std, y / spec.target_std
        try:
            found: Tensor = self.module(outputs, y)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"model.loss={self.name} does not take this task ({spec.task}): outputs of the shape "
                f"{tuple(outputs.shape)} and targets of the shape {tuple(y.shape)}: {str(error).splitlines()[0]}"
            ) from error
        if found.dim():
            raise UserError(
                f"model.loss={self.name} gives the shape {tuple(found.shape)}; expected one number"
            )
        return found
