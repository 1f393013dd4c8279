"""Plots of classes, weights and predictions as image files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from pipeline.drawing import MARK, STYLE, TRAIN, pixels_of, save, say, short, show_image
from pipeline.metrics import four_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.drawing import Array


def confusion_matrix(counts: Array, class_names: Sequence[str], path: Path) -> Path:
    """How often each class (row) was taken for each class (column): colour is the share of the row.

    Args:
        counts: Number of samples of each true class by predicted class, (classes, classes).
        class_names: Names in the order of the rows; long ones are shortened.
        path: The file to write.
    """
    counts = np.asarray(counts)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [short(name, 18) for name in class_names]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        side = float(np.clip(0.62 * size, 3.6, 8) if size <= 15 else 0.26 * size)
        figure = Figure(figsize=(side + 1.9, side + 1.2), layout="constrained")
        axis = figure.add_subplot()
        # The square root of the share: what is wrong is rare, and should be seen all the same.
        image = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        axis.set_xticks(np.arange(1, size) - 0.5, minor=True)
        axis.set_yticks(np.arange(1, size) - 0.5, minor=True)
        axis.grid(which="minor", color="#eeeeee", linewidth=0.4)
        axis.tick_params(which="minor", length=0)
        font = 9 if size <= 15 else 7
        turned = size > 15 or size * max(map(len, names)) > 48
        axis.set_xticks(range(size), names, rotation=90 if turned else 0, fontsize=font)
        axis.set_yticks(range(size), names, fontsize=font)
        _write_counts(axis, counts, shares, fontsize=9 if size <= 15 else 4.5)
        accuracy = np.trace(counts) / max(counts.sum(), 1)
        axis.set(
            xlabel="predicted",
            ylabel="true",
            title=f"{int(counts.sum())} samples, {accuracy:.2%} on the diagonal",
        )
        figure.colorbar(image, label="share of the true class", shrink=0.8)
        return save(figure, path)


def _write_counts(axis: Axes, counts: Array, shares: Array, fontsize: float) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.3 else "#303030"
        axis.text(
            column, row, f"{counts[row, column]:d}", ha="center", va="center", fontsize=fontsize, color=colour
        )


def rows_of_images(
    rows: Sequence[Sequence[Array]],
    names: Sequence[str],
    titles: Sequence[Sequence[str]],
    path: Path,
    what: str,
) -> Path:
    """Rows of pictures, each row with a name.

    Args:
        rows: Pictures of each row, (channels, height, width) each, all of one size; rows may differ in length.
        names: Name of each row.
        titles: Title of each picture.
        path: The file to write.
        what: What is shown, above all of it.
    """
    across = max(map(len, rows), default=1)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        # One axis and one image for all: laying out an axis for each picture takes seconds.
        figure = Figure(figsize=(max(4.5, 1.1 * across + 1.6), 0.7 + 1.35 * max(1, len(rows))))
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set_axis_off()
        axis.set(xlim=(-1.4, across), ylim=(len(rows) or 1, -0.5))
        if not rows:
            axis.text(0.5, 0.5, "no sample was wrong", transform=axis.transAxes, ha="center")
        for line, (images, name, above) in enumerate(zip(rows, names, titles, strict=True)):
            axis.text(-0.08, line + 0.5, name, ha="right", va="center", fontsize=9)
            axis.imshow(beside_each_other(images), extent=(0, len(images), line + 0.97, line + 0.12))
            for place, title in enumerate(above):
                axis.text(place + 0.47, line + 0.09, short(title, 14), ha="center", fontsize=7)
        axis.set(xlim=(-1.4, across), ylim=(len(rows) or 1, -0.5), aspect="auto")
        axis.text(0.5, 0.99, what, transform=axis.transAxes, ha="center", va="top", fontsize=10)
        return save(figure, path)


def beside_each_other(images: Sequence[Array]) -> Array:
    """Pictures of one size in a row, white between them: (height, width, 3), 0–255.

    Args:
        images: Pictures, (channels, height, width) each, of one or three channels, 0–255; of one they are ink on paper.
    """
    cells = []
    for image in images:
        values = np.asarray(image, dtype=np.uint8)
        values = np.repeat(255 - values, 3, axis=0) if len(values) == 1 else values
        gap = max(1, values.shape[2] // 15)
        cells.append(np.pad(values.transpose(1, 2, 0), ((0, 0), (0, gap), (0, 0)), constant_values=255))
    return np.concatenate(cells, axis=1)


def most_wrong(
    images: Array,
    true: Sequence[int],
    predicted: Sequence[int],
    confidence: Sequence[float],
    class_names: Sequence[str],
    path: Path,
    limit: int = 25,
) -> Path:
    """A grid of the samples that were wrong with the highest confidence, the worst first.

    Args:
        images: Images, (samples, height, width), (samples, height, width, channels) or (samples, channels, height,
            width).
        true: True class index of each sample.
        predicted: Predicted class index of each; samples where it agrees with `true` are left out.
        confidence: Probability given to the predicted class.
        class_names: Names by class index.
        path: The file to write.
        limit: Largest number of images shown.
    """
    wrong = [number for number in range(len(true)) if true[number] != predicted[number]]
    worst = sorted(wrong, key=lambda number: -confidence[number])[:limit]
    columns = min(5, max(1, len(worst)))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        rows = math.ceil(max(1, len(worst)) / columns)
        width, height = max(4.5, 1.75 * columns), 0.5 + 1.95 * rows
        figure = Figure(figsize=(width, height))
        # One axis for all, in inches: an axis for each picture takes longer to make than the pictures to draw.
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        if not worst:
            say(axis, "no sample was wrong")
        for place, number in enumerate(worst):
            down, right = divmod(place, columns)
            x, y = (right + 0.5) * width / columns, height - 1.55 - 1.95 * down
            sides = pixels_of(images[number]).shape[:2]
            high, wide = (0.7 * side / max(sides) for side in sides)
            show_image(axis, images[number], (x - wide, x + wide, y - high, y + high))
            names = (
                short(str(class_names[true[number]]), 14),
                short(str(class_names[predicted[number]]), 14),
            )
            separator = " → " if sum(map(len, names)) <= 12 else "\n→ "
            title = f"{separator.join(names)} ({confidence[number]:.0%})"
            axis.text(x, y + high + 0.08, title, fontsize=9, ha="center")
        axis.set(xlim=(0, width), ylim=(0, height), aspect="auto")
        figure.suptitle("true → predicted (confidence)", fontsize=10)
        return save(figure, path)


def filters(weights: Array, path: Path) -> Path:
    """The filters of a convolution as images: blue is positive, red negative, on one scale.

    Args:
        weights: Weights, (out channels, in channels, height, width); several in-channels are shown by their mean.
        path: The file to write.
    """
    images = np.asarray(weights).mean(axis=1)
    return _weight_images(images, [str(number) for number in range(len(images))], path, columns=8, size=0.95)


def linear_weights(
    weights: Array, image_shape: tuple[int, int], class_names: Sequence[str], path: Path
) -> Path:
    """What a linear model weighs in an image, a picture a class: blue speaks for the class, red against it.

    Args:
        weights: Weights, (outputs, channels × height × width); of several channels the mean is shown.
        image_shape: Height and width of the images.
        class_names: Names in the order of the outputs.
        path: The file to write.
    """
    images = np.asarray(weights).reshape(len(weights), -1, *image_shape).mean(axis=1)
    return _weight_images(images, [short(str(name), 18) for name in class_names], path, columns=5, size=1.7)


def _weight_images(images: Array, titles: Sequence[str], path: Path, columns: int, size: float) -> Path:
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    limit = float(np.abs(images).max()) or 1.0
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(
            figsize=(max(3.0, size * columns + 1.0), (size + 0.3) * rows + 0.2), layout="constrained"
        )
        axes = [figure.add_subplot(rows, columns, number + 1) for number in range(len(images))]
        for axis, image, title in zip(axes, images, titles, strict=False):
            shown = axis.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
        figure.colorbar(shown, ax=axes, shrink=0.8, aspect=30, label="weight")
        return save(figure, path)


def regression_scatter(
    true: Array, predicted: Array, path: Path, name: str = "target", unit: str = ""
) -> Path:
    """Predicted against true values, with the diagonal and the mean absolute error.

    Args:
        true: True values, (samples,).
        predicted: Predicted values, (samples,); NaN is left out.
        path: The file to write.
        name: Name of what is predicted.
        unit: Unit of what is predicted.
    """
    true, predicted = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    known = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[known], predicted[known]
    suffix = f" ({unit})" if unit else ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.2), layout="constrained")
        axis = figure.add_subplot()
        if len(true):
            axis.scatter(
                true, predicted, s=14 if len(true) > 50 else 50, color=TRAIN, alpha=0.6, linewidths=0
            )
            low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
            # One sample that is nearly right would otherwise make a plot a thousandth of a unit wide.
            margin = max(0.05 * (high - low), 0.05 * abs(high), 1e-9)
            ends = [low - margin, high + margin]
            axis.plot(ends, ends, color=MARK, linewidth=1, linestyle="--", label="predicted = true")
            axis.legend()
            error = np.abs(true - predicted).mean()
            axis.set_title(
                f"mean absolute error {four_digits(error)}{' ' + unit if unit else ''}, {len(true)} samples"
            )
        else:
            say(axis, "no prediction")
        axis.set(xlabel=f"true {name}{suffix}", ylabel=f"predicted {name}{suffix}")
        return save(figure, path)
