"""Which plots a run gets, from what it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Rows
from pipeline.models.base import BaseModule
from pipeline.reports import curves, plots
from pipeline.runs.result import RunResult

MOST_CONVOLUTIONS = 6
"""Of a deep network the first are shown: what later ones look for is no picture any more."""


def plots_of_run(
    data: DataModule, model: BaseModule, result: RunResult, answers: tuple[Tensor, Tensor] | None
) -> list[Path]:
    """Draw the plots of a finished run into its ``plots`` folder.

    Args:
        data: The data set.
        model: The trained model.
        result: The result of the run.
        answers: Logits and targets of the test split, None where it was not tested.

    Returns:
        The files written.
    """
    folder = result.directory / "plots"
    folder.mkdir(exist_ok=True)
    made: list[Path] = []
    if any(name.startswith(("train/", "val/")) for name in result.history):
        made.append(curves.learning_curves(result.history, result.best_epoch, folder / "learning_curves.png"))
    if len(next(iter(result.steps.values()), ())) > 1:
        made.append(curves.step_curves(result.steps, folder / "training_steps.png"))
    made += _weights(model, folder)
    made += _convolutions(data, model, folder)
    if answers is not None:
        made += _of_test(data, model, *answers, folder)
    for extra in data.plots(model, folder):
        made.append(extra)
    return made


def _weights(model: BaseModule, folder: Path) -> list[Path]:
    from pipeline.models.cnn import CNN
    from pipeline.models.linear import Linear

    spec = model.spec
    if isinstance(model, CNN):
        first = next(module for module in model.convolutions if isinstance(module, torch.nn.Conv2d))
        return [
            plots.filters(first.weight.detach().cpu().float().numpy(), folder / "first_layer_filters.png")
        ]
    if isinstance(model, Linear) and spec.input == "image":
        weights = model.output.weight.detach().cpu().numpy()
        size = (spec.input_shape[1], spec.input_shape[2])
        return [plots.linear_weights(weights, size, spec.classes, folder / "weights.png")]
    return []


def _convolutions(data: DataModule, model: BaseModule, folder: Path) -> list[Path]:
    """Filters and outputs of the first convolutions for one image, the first of the test split where there is one."""
    from pipeline.reports.convolutions import convolutions

    split = data.test if data.test is not None and len(data.test) else data.train
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Conv2d)]
    if model.spec.input != "image" or not layers:
        return []
    found: list[tuple[str, Any, Any]] = []

    def keep(name: str) -> Any:
        def hook(layer: torch.nn.Conv2d, _: Any, outputs: Tensor) -> None:
            found.append(
                (name, layer.weight.detach().float().cpu().numpy(), outputs[0].float().cpu().numpy())
            )

        return hook

    image = split.raw.take(torch.arange(1))[0]
    was_training = model.training
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers[:MOST_CONVOLUTIONS]]
    try:
        with torch.no_grad():
            model.eval()(image.to(model.device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    pixels = image[0].cpu().numpy()[:3]
    return [convolutions(pixels if len(pixels) != 2 else pixels[:1], found, folder / "convolutions.png")]


def _of_test(
    data: DataModule, model: BaseModule, logits: Tensor, targets: Tensor, folder: Path
) -> list[Path]:
    spec = model.spec
    if spec.task == "regression" and not spec.per_step:
        true, predicted = targets.reshape(-1).numpy(), logits.reshape(-1).numpy()
        path = folder / "predicted_against_true.png"
        return [plots.regression_scatter(true, predicted, path, spec.target_name, spec.target_unit)]
    if spec.per_step or spec.task == "regression":
        return []
    p = model.objective.probabilities(logits).numpy()
    predicted, true = model.objective.decided(logits).numpy(), targets.long().reshape(-1).numpy()
    made = []
    if len(spec.classes) <= 60:
        counts = np.zeros((len(spec.classes), len(spec.classes)), dtype=int)
        np.add.at(counts, (true, predicted), 1)
        made.append(plots.confusion_matrix(counts, spec.classes, folder / "confusion_matrix.png"))
    if spec.input == "image" and isinstance(data.test, Rows):
        made.append(_most_wrong(data, true, predicted, p.max(-1), folder))
    return made


def _most_wrong(data: DataModule, true: Any, predicted: Any, confidence: Any, folder: Path) -> Path:
    assert data.test is not None
    wrong = np.flatnonzero(true != predicted)
    rows = wrong[np.argsort(-confidence[wrong])][:25]
    images = data.test.raw.take(torch.from_numpy(rows))[0].cpu().numpy()[:, :3]
    return plots.most_wrong(
        images[:, :1] if images.shape[1] == 2 else images,
        true[rows].tolist(),
        predicted[rows].tolist(),
        confidence[rows].tolist(),
        data.spec.classes,
        folder / "most_confidently_wrong.png",
    )
