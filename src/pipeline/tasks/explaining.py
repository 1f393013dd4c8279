"""Which inputs mattered for a prediction: integrated gradients as heat maps, columns and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.splits import Rows
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.data.module import DataModule
    from pipeline.models.base import BaseModule
    from pipeline.models.saved import Predictor

IMAGES, SAMPLES, BARS = 8, 200, 25


def explain(predictor: Predictor, data: DataModule, split: Rows, directory: Path) -> list[Path]:
    """Draw which inputs the model's predictions rest on.

    Args:
        predictor: the model.
        data: it was trained on; the reference is its mean input (a black image, an empty text).
        split: whose samples are explained.
        directory: where the plot goes.

    Returns:
        The file written.

    Raises:
        UserError: captum is not installed, or the model's input has no gradient.
    """
    spec = predictor.spec
    if spec.input not in ("image", "vector", "bag") or spec.per_step:
        raise UserError(
            f"task.explain=true is for images, tables and bags of words; this model takes {spec.input}"
        )
    rows = torch.arange(min(len(split), IMAGES if spec.input == "image" else SAMPLES))
    x = split.take(rows)[0].float()
    attributions = integrated_gradients(predictor.module, x)
    path = directory / "explanation.png"
    if spec.input == "image":
        return [_heat_maps(x.numpy(), attributions.numpy(), path)]
    return [_bars(attributions.abs().mean(0).numpy(), _names(predictor, x.shape[1]), path)]


def integrated_gradients(model: BaseModule, x: Tensor) -> Tensor:
    """How much each input of ``x`` adds to the output for the predicted class, against an input of zeros.

    They add up to the difference of the two outputs.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise UserError(
            "task.explain=true needs captum: pip install 'hydra-lightning-pipeline[explain]'"
        ) from None
    x = x.to(model.device)

    def outputs(inputs: Tensor) -> Tensor:
        found: Tensor = model(inputs).reshape(len(inputs), -1)
        return found

    with torch.no_grad():
        logits = outputs(x)
    target = logits.argmax(1) if logits.shape[1] > 1 else 0
    with torch.enable_grad():
        found = IntegratedGradients(outputs).attribute(x, torch.zeros_like(x), target=target, n_steps=32)
    attributions: Tensor = found.detach().cpu().float()
    return attributions


def _names(predictor: Predictor, width: int) -> list[str]:
    for attribute in ("columns", "words"):
        names = getattr(predictor.encoder, attribute, None)
        if names is not None and len(names) == width:
            return [str(name) for name in names]
    return [f"input {number}" for number in range(width)]


def _heat_maps(images: np.ndarray, attributions: np.ndarray, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * len(images), 3.4), layout="constrained")
    axes: Any = figure.subplots(2, len(images), squeeze=False)
    for column, (image, attribution) in enumerate(zip(images, attributions.sum(1), strict=True)):
        axes[0, column].imshow(image[0], cmap="gray_r", vmin=0, vmax=255)
        bound = float(np.abs(attribution).max()) or 1.0
        axes[1, column].imshow(attribution, cmap="RdBu_r", vmin=-bound, vmax=bound)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("Red speaks for the predicted class, blue against it")
    figure.savefig(path, dpi=130)
    return path


def _bars(weights: np.ndarray, names: list[str], path: Path) -> Path:
    from matplotlib.figure import Figure

    top = np.argsort(weights)[-BARS:]
    figure = Figure(figsize=(7, 0.3 * len(top) + 1.2), layout="constrained")
    axis = figure.add_subplot()
    axis.barh([names[i][:40] for i in top], weights[top])
    axis.set(xlabel="mean absolute contribution to the output")
    figure.savefig(path, dpi=130)
    return path
