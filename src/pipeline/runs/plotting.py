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
from pipeline.training.at_once import fits_at_once
from pipeline.training.features import FeatureRows, is_frozen

MOST_PAIRS, MOST_OF_A_PAIR = 6, 8
"""Pairs of classes, and pictures of each."""
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
    # What is fitted at once has a point, and no curve.
    lone = fits_at_once(model) and all(len(points) < 2 for points in result.history.values())
    if not lone and any(name.startswith(("train/", "val/")) for name in result.history):
        made.append(curves.learning_curves(result.history, result.best_epoch, folder / "learning_curves.png"))
    if len(next(iter(result.steps.values()), ())) > 1:
        made.append(curves.step_curves(result.steps, folder / "training_steps.png"))
    if watched := curves.watched_curves(result.history, folder / "weights_and_answers.png"):
        made.append(watched)
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
    # Those of a frozen network are as they were given: they show nothing of this run.
    if model.spec.input != "image" or not layers or is_frozen(model):
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
    if spec.task == "multilabel":
        shown = spec.input == "image" and isinstance(data.test, Rows)
        return [_wrong_labels(data, targets.numpy() > 0.5, p, folder)] if shown else []
    predicted, true = model.objective.decided(logits).numpy(), targets.long().reshape(-1).numpy()
    made = []
    if len(spec.classes) <= 60:
        counts = np.zeros((len(spec.classes), len(spec.classes)), dtype=int)
        np.add.at(counts, (true, predicted), 1)
        made.append(plots.confusion_matrix(counts, spec.classes, folder / "confusion_matrix.png"))
    if spec.input == "image" and isinstance(data.test, Rows):
        made.append(_most_wrong(data, true, predicted, p.max(-1), folder))
        made.append(_confused(data, true, predicted, p.max(-1), folder))
        if isinstance(data.train, FeatureRows) and isinstance(data.test, FeatureRows):
            made.append(_neighbours(data, data.train, data.test, true, predicted, folder))
    return made


def confused_pairs(true: Any, predicted: Any, confidence: Any) -> list[tuple[int, int, np.ndarray]]:
    """The pairs of classes that are mistaken for each other most often.

    Args:
        true: True class of each sample.
        predicted: Predicted class of each sample.
        confidence: Probability of the predicted class.

    Returns:
        True class, predicted class and the samples, the surest first; the most frequent pair first.
    """
    wrong = np.flatnonzero(true != predicted)
    pairs, counts = np.unique(np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    found = []
    for place in np.argsort(-counts, kind="stable")[:MOST_PAIRS]:
        was, said = pairs[place].tolist()
        rows = wrong[(true[wrong] == was) & (predicted[wrong] == said)]
        found.append((was, said, rows[np.argsort(-confidence[rows], kind="stable")]))
    return found


def _pictures(split: Rows, rows: np.ndarray) -> list[np.ndarray]:
    """Samples as they are shown: grey, or of three channels."""
    if not len(rows):
        return []
    images = split.raw.take(torch.from_numpy(rows))[0].cpu().numpy()[:, :3]
    return list(images[:, :1] if images.shape[1] == 2 else images)


def _wrong_labels(data: DataModule, true: Any, p: Any, folder: Path) -> Path:
    """For the labels with most mistakes, the pictures that the model was surest of and wrong about."""
    assert data.test is not None
    names, wrong = data.spec.classes, (p > 0.5) != true
    labels = [k for k in np.argsort(-wrong.sum(0), kind="stable")[:MOST_PAIRS] if wrong[:, k].any()]
    rows = []
    for k in labels:
        own = np.flatnonzero(wrong[:, k])
        rows.append(own[np.argsort(-np.abs(p[own, k] - 0.5), kind="stable")][:MOST_OF_A_PAIR])
    return plots.rows_of_images(
        [_pictures(data.test, own) for own in rows],
        [f"{names[k]}\n{int(wrong[:, k].sum())} wrong" for k in labels],
        [
            [f"{p[row, k]:.0%}, {'has it' if true[row, k] else 'has not'}" for row in own]
            for k, own in zip(labels, rows, strict=True)
        ],
        folder / "wrong_labels.png",
        "the labels with most mistakes: pictures that the model was surest of, and what is true",
    )


def _confused(data: DataModule, true: Any, predicted: Any, confidence: Any, folder: Path) -> Path:
    assert data.test is not None
    names, pairs = data.spec.classes, confused_pairs(true, predicted, confidence)
    return plots.rows_of_images(
        [_pictures(data.test, rows[:MOST_OF_A_PAIR]) for _, _, rows in pairs],
        [f"{names[was]}\n→ {names[said]}\n{len(rows)} times" for was, said, rows in pairs],
        [[f"{confidence[row]:.0%}" for row in rows[:MOST_OF_A_PAIR]] for _, _, rows in pairs],
        folder / "confused_pairs.png",
        "the classes mistaken for each other most often: true → predicted, the surest first",
    )


def nearest(features: Tensor, of: Tensor, count: int) -> Tensor:
    """The rows of ``features`` that are nearest to each row of ``of`` by their angle, (rows, count), the nearest first.

    Args:
        features: Features of the known samples, (samples, features); angles are seen from their mean.
        of: Features of the samples asked about, (rows, features).
        count: Number of neighbours.
    """
    known, asked = (
        torch.nn.functional.normalize(x.float() - features.mean(0), dim=1) for x in (features, of)
    )
    found: Tensor = (asked @ known.T).topk(min(count, len(known)), dim=1).indices
    return found


def _neighbours(
    data: DataModule, train: FeatureRows, test: FeatureRows, true: Any, predicted: Any, folder: Path
) -> Path:
    """Wrong pictures beside the training pictures that are nearest to them for the frozen network."""
    assert isinstance(train.x, Tensor) and isinstance(test.x, Tensor)
    wrong = np.flatnonzero(true != predicted)[:MOST_PAIRS]
    names = data.spec.classes
    close = nearest(train.x, test.x[torch.from_numpy(wrong)], MOST_OF_A_PAIR - 1).numpy()
    rows, titles = [], []
    for row, near in zip(wrong, close, strict=True):
        rows.append(_pictures(test, np.array([row])) + _pictures(train, near))
        titles.append(["", *(names[int(train.y[one])] for one in near)])
    return plots.rows_of_images(
        rows,
        [f"{names[true[row]]}\n→ {names[predicted[row]]}" for row in wrong],
        titles,
        folder / "nearest_neighbours.png",
        "wrong pictures, and the training pictures whose features are nearest",
    )


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
