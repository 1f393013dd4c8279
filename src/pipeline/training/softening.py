"""Targets that are less than sure: pictures mixed two by two, and a share of certainty given to all classes."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.errors import UserError
from pipeline.models.objective import Objective

log = logging.getLogger(__name__)

_ALPHA = {"mixup": 0.2, "cutmix": 1.0}
"""Of the Beta distribution that the share of the second picture is drawn from, as torchvision's recipes have it."""


@dataclass(frozen=True)
class Softened:
    """A batch as it is learnt from.

    Args:
        x: Inputs, perhaps mixed.
        y: Targets.
        other: Targets of the pictures that were mixed in.
        share: Share of the first picture; 1 where nothing is mixed.
        smoothing: Share of certainty that is given to all classes alike.
    """

    x: Tensor
    y: Tensor
    other: Tensor
    share: float
    smoothing: float

    def loss(self, objective: Objective, logits: Tensor) -> Tensor:
        """The mean loss, weighted by the shares of what was mixed."""
        loss = objective.loss(logits, self.y, self.smoothing)
        if self.share == 1:
            return loss
        return self.share * loss + (1 - self.share) * objective.loss(logits, self.other, self.smoothing)


@dataclass(frozen=True)
class Softening:
    """How training targets lose their certainty.

    Pixels are mixed as they come, before a model makes numbers around 0 of them; torchvision's own classes take floats.

    Args:
        mix: ``none``, ``mixup`` (Zhang et al. 2018), ``cutmix`` (Yun et al. 2019) or ``both``, one of them for each
            batch.
        smoothing: Share of certainty that is given to all classes alike.
    """

    mix: str = "none"
    smoothing: float = 0.0

    def __call__(self, x: Tensor, y: Tensor) -> Softened:
        """A batch with what is mixed in drawn from torch's random state."""
        kind = self.mix
        if kind == "both":
            kind = "mixup" if torch.rand(()) < 0.5 else "cutmix"
        if kind == "none" or len(x) < 2:
            return Softened(x, y, y, 1.0, self.smoothing)
        alpha = _ALPHA[kind]
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        order = torch.randperm(len(x)).to(x.device)
        if kind == "mixup":
            # Pixels stay what an encoder gives: whole numbers are mixed in full, and rounded once.
            mixed = share * x.float() + (1 - share) * x[order].float()
            mixed = (mixed if x.is_floating_point() else mixed.round()).to(x.dtype)
            return Softened(mixed, y, y[order], share, self.smoothing)
        mixed, kept = _cut(x, x[order], share)
        return Softened(mixed, y, y[order], kept, self.smoothing)


def softening(data: DataModule, objective: Objective) -> Softening | None:
    """What ``data.mix`` and ``data.label_smoothing`` ask for; None for nothing.

    Raises:
        UserError: The data is of another kind, or the loss is none of probabilities.
    """
    if data.mix == "none" and not data.label_smoothing:
        return None
    spec = data.spec
    if spec.task == "regression" or spec.per_step:
        raise UserError(
            "data.mix and data.label_smoothing are for samples with a class each; this data has none"
        )
    if data.mix != "none" and spec.input != "image":
        raise UserError(f"data.mix={data.mix} is for images; this data gives {spec.input}")
    if data.label_smoothing and objective.loss_name != "auto":
        raise UserError(
            f"data.label_smoothing={data.label_smoothing} is for the cross-entropy; with "
            f"model.loss={objective.loss_name} set it to 0, or model.loss=auto"
        )
    return Softening(data.mix, data.label_smoothing)


def say_unsoftened(data: object, name: str) -> None:
    """Warn that what ``data`` asks for is nothing to a model that is not trained by our step.

    Args:
        data: The data module, which may be anybody's.
        name: Name of the model.
    """
    if getattr(data, "mix", "none") != "none" or getattr(data, "label_smoothing", 0):
        log.warning(
            "%s learns from samples as they are: data.mix and data.label_smoothing change nothing", name
        )


def _cut(x: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """Pictures with a rectangle of others in them, and the share of pixels that are still their own."""
    height, width = x.shape[-2:]
    part = (1 - share) ** 0.5
    half_height, half_width = int(height * part) // 2, int(width * part) // 2
    middle_down, middle_right = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(0, middle_down - half_height), min(height, middle_down + half_height)
    left, right = max(0, middle_right - half_width), min(width, middle_right + half_width)
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
