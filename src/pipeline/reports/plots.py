"""Plots as image files: every function takes plain arrays or dictionaries and returns the path it wrote.

The file's kind follows from the path's suffix (`.png`, `.svg`, `.pdf`). Figures are made without pyplot:
nothing is left to close, and no display is needed. NaN in a curve is a gap; empty input gives a plot that
says so, never an error: a run that was interrupted early still leaves its plots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[Any]

Curve = Sequence[tuple[float, float]]
Corner = Literal["upper right", "lower right", "upper left", "lower left", "center right"]

TRAIN, VALIDATION, MARK = "#4878a8", "#d1611f", "#3f3f3f"
# Told apart also without red-green vision.
COLOURS = ["#4878a8", "#d1611f", "#3a8a5c", "#a0559c", "#b8902c"]
COLOURS += ["#5f5f5f", "#7fb2d6", "#e3a077", "#93c4a5", "#c79ac5"]
# Any: matplotlib annotates the parameter with all of its names as literals.
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "savefig.dpi": 130,
    "image.interpolation": "nearest",
    # A class may be called "$5": that is no formula.
    "text.parse_math": False,
}


def learning_curves(
    history: Mapping[str, Curve], best_epoch: int | None, path: Path, title: str = ""
) -> Path:
    """Training against validation, one panel a metric, the best epoch marked and what follows it shaded.

    Args:
        history: `train/loss`, `val/loss`, `val/accuracy` … → (epoch, value) pairs; other names are left out.
        best_epoch: the epoch whose weights were kept, on the scale of the pairs; None marks nothing.
        path: the file to write.
        title: a line above the panels.
    """
    metrics = _metrics_of(history)
    with mpl.rc_context(STYLE):
        columns = min(3, max(1, len(metrics)))
        rows = math.ceil(max(1, len(metrics)) / columns)
        figure = Figure(figsize=(5.2 * columns, 3.7 * rows), layout="constrained")
        axes = [figure.add_subplot(rows, columns, number + 1) for number in range(max(1, len(metrics)))]
        if not metrics:
            _say(axes[0], "no epoch was finished")
        for axis, metric in zip(axes, metrics, strict=False):
            _train_against_validation(axis, metric, history, best_epoch)
        if title:
            figure.suptitle(title)
        return _save(figure, path)


def _metrics_of(history: Mapping[str, Curve]) -> list[str]:
    """Metric names without their prefix: the loss, and whatever has a validation curve.

    Without any validation curve, everything recorded in training but rates (of learning, of samples).
    """
    validation = {
        name.removeprefix("val/") for name, curve in history.items() if name.startswith("val/") and curve
    }
    training = {
        name.removeprefix("train/") for name, curve in history.items() if name.startswith("train/") and curve
    }
    shown = validation | (training & {"loss"}) if validation else training - {"lr", "samples_per_second"}
    return sorted(shown, key=lambda name: (name != "loss", name))


def _train_against_validation(
    axis: Axes, metric: str, history: Mapping[str, Curve], best_epoch: int | None
) -> None:
    for split, label, colour in (("train", "training", TRAIN), ("val", "validation", VALIDATION)):
        curve = history.get(f"{split}/{metric}", ())
        if curve:
            epochs, values = _columns(curve)
            axis.plot(
                epochs, values, color=colour, marker="o", markersize=3 if len(curve) <= 40 else 0, label=label
            )
    if best_epoch is not None:
        _mark_best(axis, history.get(f"val/{metric}", ()), best_epoch)
    axis.set(title=metric.replace("_", " "), xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc=_emptiest_corner(axis), frameon=True, framealpha=0.8, edgecolor="none")


def _emptiest_corner(axis: Axes) -> Corner:
    """Where a legend covers the fewest points; matplotlib's own search would also keep off the shading."""
    lines = [np.asarray(line.get_xydata()) for line in axis.lines]
    points = np.concatenate([line for line in lines if len(line) > 2] or [np.zeros((1, 2))])
    x, y = axis.transAxes.inverted().transform(axis.transData.transform(points)).T
    corners: dict[Corner, Any] = {
        "upper right": np.count_nonzero((x > 0.45) & (y > 0.7)),
        "lower right": np.count_nonzero((x > 0.45) & (y < 0.3)),
        "upper left": np.count_nonzero((x < 0.55) & (y > 0.7)),
        "lower left": np.count_nonzero((x < 0.55) & (y < 0.3)),
        "center right": np.count_nonzero((x > 0.45) & (abs(y - 0.5) < 0.15)),
    }
    return min(corners, key=lambda corner: corners[corner])


def _mark_best(axis: Axes, curve: Curve, best_epoch: int) -> None:
    value = dict(curve).get(best_epoch)
    label = f"best: epoch {best_epoch}" + (f" ({value:.4g})" if value is not None else "")
    axis.axvline(best_epoch, color=MARK, linewidth=1, linestyle="--", label=label)
    if value is not None:
        axis.plot(
            [best_epoch], [value], marker="o", markersize=8, markerfacecolor="none", color=MARK, linestyle=""
        )
    last = max((epoch for epoch, _ in curve), default=best_epoch)
    if last > best_epoch:
        axis.axvspan(best_epoch, last, color="#f1ece6", zorder=0, linewidth=0)


def comparison_curves(
    curves: Mapping[str, Curve], metric: str, path: Path, baseline: float | None = None, title: str = ""
) -> Path:
    """One metric of several variants in one plot, each variant's last value in the legend.

    Args:
        curves: variant → (epoch, value) pairs.
        metric: the name for the axis.
        path: the file to write.
        baseline: the common-sense baseline, as a dashed line; None leaves it out.
        title: a line above the plot.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axis = figure.add_subplot()
        for number, (variant, curve) in enumerate(curves.items()):
            epochs, values = _columns(curve)
            label = f"{variant} ({values[-1]:.4g})" if len(values) else f"{variant} (nothing recorded)"
            axis.plot(
                epochs,
                values,
                label=label,
                color=COLOURS[number % len(COLOURS)],
                linestyle="-" if number < len(COLOURS) else "--",
                marker="o",
                markersize=3 if len(values) <= 40 else 0,
            )
        if baseline is not None:
            axis.axhline(
                baseline, color=MARK, linestyle="--", linewidth=1, label=f"baseline ({baseline:.4g})"
            )
        axis.set(xlabel="epoch", ylabel=metric, title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if curves:
            axis.legend(title="last value in brackets", title_fontsize="small")
        else:
            _say(axis, "nothing to compare")
        return _save(figure, path)


def fold_curves(folds: Mapping[int, Curve], metric: str, path: Path, lower_is_better: bool = True) -> Path:
    """One metric of each fold, and its average over the epochs that every fold has, the best one marked.

    Args:
        folds: fold number → (epoch, value) pairs.
        metric: the name for the axis.
        path: the file to write.
        lower_is_better: whether the average's minimum or its maximum is marked.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axis = figure.add_subplot()
        for number, (fold, curve) in enumerate(folds.items()):
            axis.plot(
                *_columns(curve),
                color=COLOURS[number % len(COLOURS)],
                linewidth=1,
                alpha=0.75,
                label=f"fold {fold}",
            )
        epochs, average = _average(folds)
        if np.isfinite(average).any():
            best = int(np.nanargmin(average) if lower_is_better else np.nanargmax(average))
            axis.plot(epochs, average, color="black", linewidth=2.2, label="average")
            label = f"best average: {average[best]:.4g}, epoch {epochs[best]:g}"
            axis.plot(
                epochs[best],
                average[best],
                "o",
                color="black",
                markersize=8,
                markerfacecolor="none",
                label=label,
            )
        else:
            _say(axis, "no epoch that every fold finished")
        axis.set(xlabel="epoch", ylabel=metric)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if folds:
            axis.legend()
        return _save(figure, path)


def _average(folds: Mapping[int, Curve]) -> tuple[Array, Array]:
    tables = [dict(curve) for curve in folds.values()]
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    return np.array(shared), np.array([np.mean([table[epoch] for table in tables]) for epoch in shared])


def confusion_matrix(counts: Array, class_names: Sequence[str], path: Path) -> Path:
    """How often each class (row) was taken for each class (column): colour is the share of the row.

    Args:
        counts: (classes, classes) integers, true class by predicted class.
        class_names: names in the order of the rows; long ones are shortened.
        path: the file to write.
    """
    counts = np.asarray(counts)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_short(name, 18) for name in class_names]
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
        return _save(figure, path)


def _write_counts(axis: Axes, counts: Array, shares: Array, fontsize: float) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.3 else "#303030"
        axis.text(
            column, row, f"{counts[row, column]:d}", ha="center", va="center", fontsize=fontsize, color=colour
        )


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
        images: (samples, height, width), (samples, height, width, channels) or
            (samples, channels, height, width).
        true: class indices.
        predicted: class indices; samples where they agree with `true` are left out.
        confidence: the probability given to the predicted class.
        class_names: names by class index.
        path: the file to write.
        limit: most images shown.
    """
    wrong = [number for number in range(len(true)) if true[number] != predicted[number]]
    worst = sorted(wrong, key=lambda number: -confidence[number])[:limit]
    columns = min(5, max(1, len(worst)))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        rows = math.ceil(max(1, len(worst)) / columns)
        figure = Figure(figsize=(max(4.5, 1.75 * columns), 0.5 + 1.95 * rows), layout="constrained")
        if not worst:
            _say(figure.add_subplot(), "no sample was wrong")
        for place, number in enumerate(worst):
            axis = figure.add_subplot(rows, columns, place + 1)
            _show_image(axis, images[number])
            names = (
                _short(str(class_names[true[number]]), 14),
                _short(str(class_names[predicted[number]]), 14),
            )
            separator = " → " if sum(map(len, names)) <= 12 else "\n→ "
            axis.set_title(f"{separator.join(names)} ({confidence[number]:.0%})", fontsize=9)
        figure.suptitle("true → predicted (confidence)", fontsize=10)
        return _save(figure, path)


def filters(weights: Array, path: Path) -> Path:
    """The filters of a convolution as images: blue is positive, red negative, on one scale.

    Args:
        weights: (out channels, in channels, height, width); several in-channels are shown by their mean.
        path: the file to write.
    """
    images = np.asarray(weights).mean(axis=1)
    return _weight_images(images, [str(number) for number in range(len(images))], path, columns=8, size=0.95)


def linear_weights(
    weights: Array, image_shape: tuple[int, int], class_names: Sequence[str], path: Path
) -> Path:
    """What a linear model weighs in an image, a picture a class: blue speaks for the class, red against it.

    Args:
        weights: (outputs, height × width × channels) with the channels first; of several, the mean is
            shown.
        image_shape: (height, width).
        class_names: names in the order of the outputs.
        path: the file to write.
    """
    images = np.asarray(weights).reshape(len(weights), -1, *image_shape).mean(axis=1)
    return _weight_images(images, [_short(str(name), 18) for name in class_names], path, columns=5, size=1.7)


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
        return _save(figure, path)


def decision_boundary(
    points: Array,
    labels: Sequence[int],
    predict: Callable[[Array], Array],
    path: Path,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Which class a model gives to each place of the plane, under the scatter of the points.

    Args:
        points: (samples, 2).
        labels: class indices of the points.
        predict: (places, 2) → class index of each place.
        path: the file to write.
        class_names: names by class index; None writes the indices.
    """
    points, given = np.asarray(points), np.asarray(labels)
    margin = 0.08 * (np.ptp(points, axis=0) + 1e-9)
    (left, bottom), (right, top) = points.min(axis=0) - margin, points.max(axis=0) + margin
    across, up = np.meshgrid(np.linspace(left, right, 300), np.linspace(bottom, top, 300))
    classes = np.asarray(predict(np.column_stack([across.ravel(), up.ravel()]))).reshape(across.shape)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6, 5.2), layout="constrained")
        axis = figure.add_subplot()
        present = np.union1d(np.unique(given), np.unique(classes)).astype(int)
        levels = np.arange(len(present) + 1) - 0.5
        places = np.searchsorted(present, classes)
        colours = [COLOURS[number % len(COLOURS)] for number in range(len(present))]
        axis.contourf(across, up, places, levels=levels, colors=colours, alpha=0.22)
        if len(np.unique(places)) > 1:
            axis.contour(across, up, places, levels=levels[1:-1], colors=MARK, linewidths=1.2)
        for number, label in enumerate(present):
            mine = points[given == label]
            name = class_names[label] if class_names else f"class {label}"
            axis.scatter(
                mine[:, 0], mine[:, 1], s=8, color=colours[number], alpha=0.8, linewidths=0, label=name
            )
        axis.legend(markerscale=2, frameon=True, framealpha=0.85, edgecolor="none")
        accuracy = np.mean(np.asarray(predict(points)) == given)
        axis.set_title(f"{accuracy:.2%} of {len(points)} points on their side")
        return _save(figure, path)


def series_echo(inputs: Array, echo: Array, prediction: Array, path: Path, delay: int | None = None) -> Path:
    """A bit series, its echo and what the model says, one below the other; wrong bits are marked.

    Args:
        inputs: (steps,) the series that goes in.
        echo: (steps,) what should come out.
        prediction: (steps,) what comes out: bits or their probabilities (right and wrong are told at 0.5).
        path: the file to write.
        delay: the echo's distance in steps, for the title.
    """
    steps = np.arange(len(inputs))
    wrong = (np.asarray(prediction) >= 0.5) != (np.asarray(echo) >= 0.5)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True)
        rows = (("input", inputs, COLOURS[5]), ("echo", echo, TRAIN), ("prediction", prediction, VALIDATION))
        for axis, (name, series, colour) in zip(axes, rows, strict=True):
            axis.step(steps, series, where="mid", color=colour, linewidth=1.4)
            axis.fill_between(steps, series, step="mid", color=colour, alpha=0.2)
            axis.set_ylabel(name, rotation=0, ha="right", va="center")
            axis.set(yticks=[0, 1], ylim=(-0.15, 1.25))
        axes[2].plot(
            steps[wrong], np.full(wrong.sum(), 1.15), "v", color="#b3261e", markersize=5, clip_on=False
        )
        axes[2].set_xlabel("step")
        distance = f", {delay} steps later" if delay is not None else ""
        axes[0].set_title(f"echo{distance}: {int(wrong.sum())} of {len(steps)} bits wrong (▼)")
        return _save(figure, path)


def regression_scatter(
    true: Array, predicted: Array, path: Path, name: str = "target", unit: str = ""
) -> Path:
    """Predicted against true values, with the diagonal and the mean absolute error.

    Args:
        true: (samples,) values.
        predicted: (samples,) values; NaN is left out.
        path: the file to write.
        name: what is predicted.
        unit: its unit.
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
                f"mean absolute error {error:.4g}{' ' + unit if unit else ''}, {len(true)} samples"
            )
        else:
            _say(axis, "no prediction")
        axis.set(xlabel=f"true {name}{suffix}", ylabel=f"predicted {name}{suffix}")
        return _save(figure, path)


def calibration_curve(confidence: Array, correct: Array, path: Path, bins: int = 10) -> Path:
    """How often the model is right when it is so sure, with the expected calibration error.

    Args:
        confidence: (samples,) probability given to the predicted class.
        correct: (samples,) whether the prediction was right.
        path: the file to write.
        bins: number of equally wide bins between 0 and 1; empty ones are left out.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    which = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    sure = np.bincount(which, confidence, bins)[filled] / counts[filled]
    right = np.bincount(which, correct, bins)[filled] / counts[filled]
    error = float(np.sum(np.abs(sure - right) * counts[filled]) / max(len(confidence), 1))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.6), layout="constrained")
        axis, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        axis.plot([0, 1], [0, 1], color=MARK, linewidth=1, linestyle="--", label="as sure as right")
        axis.plot(sure, right, color=TRAIN, marker="o", label="model")
        axis.set(
            ylabel="share that is right", title=f"expected calibration error {error:.4f}", ylim=(-0.02, 1.02)
        )
        axis.legend()
        below.bar((np.arange(bins) + 0.5) / bins, counts, width=0.9 / bins, color=TRAIN)
        below.set(xlabel="confidence", ylabel="samples", xlim=(-0.02, 1.02))
        return _save(figure, path)


def roc_curve(positive: Array, score: Array, path: Path) -> Path:
    """True against false positive rate over all thresholds, with the area under the curve.

    Args:
        positive: (samples,) whether the sample belongs to the positive class.
        score: (samples,) the higher, the more positive.
        path: the file to write.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.metrics import roc_curve as rates

    if len(np.unique(positive)) < 2:
        return _only_one_class(path)
    false_positive, true_positive, _ = rates(positive, score)
    title = f"area under the curve {roc_auc_score(positive, score):.4f}"
    return _rates(
        false_positive, true_positive, ("false positive rate", "true positive rate"), title, None, path
    )


def precision_recall_curve(positive: Array, score: Array, path: Path) -> Path:
    """Precision against recall over all thresholds, with the average precision and the share of positives.

    Args:
        positive: (samples,) whether the sample belongs to the positive class.
        score: (samples,) the higher, the more positive.
        path: the file to write.
    """
    from sklearn.metrics import average_precision_score
    from sklearn.metrics import precision_recall_curve as rates

    if len(np.unique(positive)) < 2:
        return _only_one_class(path)
    precision, recall, _ = rates(positive, score)
    title = f"average precision {average_precision_score(positive, score):.4f}"
    return _rates(recall, precision, ("recall", "precision"), title, float(np.mean(positive)), path)


def _rates(
    across: Array, up: Array, names: tuple[str, str], title: str, chance: float | None, path: Path
) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.2), layout="constrained")
        axis = figure.add_subplot()
        axis.plot(across, up, color=TRAIN, drawstyle="steps-post", label="model")
        axis.plot(
            [0, 1],
            [0, 1] if chance is None else [chance, chance],
            color=MARK,
            linewidth=1,
            linestyle="--",
            label="chance",
        )
        axis.set(xlabel=names[0], ylabel=names[1], title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axis.legend()
        return _save(figure, path)


def _only_one_class(path: Path) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.2), layout="constrained")
        _say(figure.add_subplot(), "only one class among the samples")
        return _save(figure, path)


def _show_image(axis: Axes, image: Array) -> None:
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    axis.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
    axis.set_axis_off()


def _columns(curve: Curve) -> tuple[Array, Array]:
    pairs = np.asarray(list(curve), dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _say(axis: Axes, words: str) -> None:
    axis.text(0.5, 0.5, words, ha="center", va="center", transform=axis.transAxes, color=MARK)
    axis.set_axis_off()


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
    return path
