"""Curves of numbers over epochs, thresholds and confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.drawing import COLOURS, MARK, STYLE, TRAIN, VALIDATION, Corner, Curve, columns, save, say
from pipeline.metrics import four_digits, higher_is_better, in_order, is_cost, judged_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.drawing import Array

_STEP_TITLES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "mae": "training error (mean, absolute)",
    "lr": "learning rate",
    "grad_norm": "gradient norm, before clipping",
}


def learning_curves(
    history: Mapping[str, Curve], best_epoch: int | None, path: Path, title: str = ""
) -> Path:
    """Training against validation, one panel a metric, the best epoch marked and what follows it shaded.

    Args:
        history: Pairs of epoch and value by name, `train/loss`, `val/loss`, `val/accuracy` …; other names are left out.
        best_epoch: Epoch whose weights were kept, on the scale of the pairs; None marks nothing.
        path: The file to write.
        title: Line above the panels.
    """
    metrics = _metrics_of(history)
    with mpl.rc_context(STYLE):
        figure, axes = _panels(max(1, len(metrics)), 3, 3.7, title)
        if not metrics:
            say(axes[0], "no epoch was finished")
        for axis, metric in zip(axes, metrics, strict=False):
            _train_against_validation(axis, metric, history, best_epoch)
        return save(figure, path)


def _panels(number: int, most: int, high: float, title: str = "") -> tuple[Figure, list[Axes]]:
    """A figure and its panels, with room about each of them for its title, its ticks and the names of its axes.

    A constrained layout draws everything twice, and short runs would wait for it.

    Args:
        number: Number of panels.
        most: Largest number of panels in a row.
        high: Height of a row, in inches.
        title: Line above the panels.
    """
    across = min(most, number)
    down = math.ceil(number / across)
    width, height = 5.2 * across, high * down
    left, right, bottom, above, beside, between = 0.8, 0.2, 0.58, 0.36 + (0.3 if title else 0), 0.75, 0.95
    panel = (width - left - right - (across - 1) * beside) / across
    tall = (height - bottom - above - (down - 1) * between) / down
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left / width, bottom / height, 1 - right / width, 1 - above / height, beside / panel, between / tall
    )
    if title:
        figure.suptitle(title, y=1 - 0.08 / height, va="top")
    return figure, [figure.add_subplot(down, across, place + 1) for place in range(number)]


def _metrics_of(history: Mapping[str, Curve]) -> list[str]:
    """Metric names without their prefix: the loss, and whatever has a validation curve.

    Without any validation curve, everything recorded in training but what it took (rate of learning, time).
    """
    validation = {
        name.removeprefix("val/") for name, curve in history.items() if name.startswith("val/") and curve
    }
    training = {
        name.removeprefix("train/") for name, curve in history.items() if name.startswith("train/") and curve
    }
    shown = validation | (training & {"loss"}) if validation else {n for n in training if not is_cost(n)}
    return in_order(shown)


def _train_against_validation(
    axis: Axes, metric: str, history: Mapping[str, Curve], best_epoch: int | None
) -> None:
    for split, label, colour in (("train", "training", TRAIN), ("val", "validation", VALIDATION)):
        curve = history.get(f"{split}/{metric}", ())
        if curve:
            epochs, values = columns(curve)
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
    label = f"best: epoch {best_epoch}" + (f" ({four_digits(value)})" if value is not None else "")
    axis.axvline(best_epoch, color=MARK, linewidth=1, linestyle="--", label=label)
    if value is not None:
        axis.plot(
            [best_epoch], [value], marker="o", markersize=8, markerfacecolor="none", color=MARK, linestyle=""
        )
    last = max((epoch for epoch, _ in curve), default=best_epoch)
    if last > best_epoch:
        axis.axvspan(best_epoch, last, color="#f1ece6", zorder=0, linewidth=0)


def step_curves(points: Mapping[str, Curve], path: Path) -> Path:
    """What was recorded within epochs, a panel each: loss, accuracy or error, learning rate, gradient norm.

    A learning rate that stays the same is no panel.

    Args:
        points: Pairs of optimiser step and value by name, ``step/loss`` …
        path: The file to write.
    """
    said = {name: it for name, it in points.items() if name != "step/lr" or len(set(columns(it)[1])) > 1}
    points = said or points
    with mpl.rc_context(STYLE):
        figure, axes = _panels(len(points), 2, 2.9)
        for axis, (name, curve) in zip(axes, points.items(), strict=True):
            steps, values = columns(curve)
            axis.plot(
                steps, values, color=TRAIN, linewidth=1.2, marker="o", markersize=3 if len(curve) <= 40 else 0
            )
            title = name.removeprefix("step/")
            axis.set(title=_STEP_TITLES.get(title, title), xlabel="optimiser step")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return save(figure, path)


def watched_curves(history: Mapping[str, Curve], path: Path) -> Path | None:
    """Single weights, and answers to single inputs, as they were recorded from epoch to epoch, a panel each.

    Args:
        history: Pairs of epoch and value by name, ``weights/…`` and ``prediction/…`` among them.
        path: The file to write.

    Returns:
        The file; None where there are none of these, or more weights than a legend can name.
    """
    groups = {
        title: {
            name.removeprefix(prefix): curve for name, curve in history.items() if name.startswith(prefix)
        }
        for prefix, title in (("weights/", "weights"), ("prediction/", "answers"))
    }
    there = {title: named for title, named in groups.items() if 0 < len(named) <= len(COLOURS)}
    if not there:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0 * len(there), 3.2), layout="constrained")
        for number, (title, named) in enumerate(there.items()):
            axis = figure.add_subplot(1, len(there), number + 1)
            for place, (name, curve) in enumerate(named.items()):
                label = f"f({name})" if title == "answers" else name
                axis.plot(*columns(curve), color=COLOURS[place], marker="o", markersize=3, label=label)
            axis.set(title=title, xlabel="epoch")
            # Beside the panel: many weights leave no corner free.
            axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return save(figure, path)


def comparison_curves(
    curves: Mapping[str, Curve], metric: str, path: Path, baseline: float | None = None, title: str = ""
) -> Path:
    """One metric of several variants in one plot, each variant's last value in the legend.

    Args:
        curves: Pairs of epoch and value of each variant.
        metric: Name for the axis.
        path: The file to write.
        baseline: Value of the common-sense baseline, as a dashed line; None leaves it out.
        title: Line above the plot.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axis = figure.add_subplot()
        for number, (variant, curve) in enumerate(curves.items()):
            epochs, values = columns(curve)
            label = (
                f"{variant} ({four_digits(values[-1])})" if len(values) else f"{variant} (nothing recorded)"
            )
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
                baseline, color=MARK, linestyle="--", linewidth=1, label=f"baseline ({four_digits(baseline)})"
            )
        axis.set(xlabel="epoch", ylabel=metric, title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if curves:
            axis.legend(title="last value in brackets", title_fontsize="small")
        else:
            say(axis, "nothing to compare")
        return save(figure, path)


def fold_curves(folds: Mapping[int, Curve], metric: str, path: Path) -> Path:
    """One metric of each fold, and its average over the epochs that every fold has, the best one marked.

    Args:
        folds: Pairs of epoch and value of each fold, by its number.
        metric: Name for the axis; it says whether the average's minimum or its maximum is marked, or neither.
        path: The file to write.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axis = figure.add_subplot()
        for number, (fold, curve) in enumerate(folds.items()):
            axis.plot(
                *columns(curve),
                color=COLOURS[number % len(COLOURS)],
                linewidth=1,
                alpha=0.75,
                label=f"fold {fold}",
            )
        epochs, average = _average(folds)
        if not np.isfinite(average).any():
            say(axis, "no epoch that every fold finished")
        else:
            axis.plot(epochs, average, color="black", linewidth=2.2, label="average")
            if judged_by([metric]):
                best = int(np.nanargmax(average) if higher_is_better(metric) else np.nanargmin(average))
                label = f"best average: {four_digits(average[best])}, epoch {epochs[best]:g}"
                axis.plot(
                    epochs[best],
                    average[best],
                    "o",
                    color="black",
                    markersize=8,
                    markerfacecolor="none",
                    label=label,
                )
        axis.set(xlabel="epoch", ylabel=metric)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if folds:
            axis.legend()
        return save(figure, path)


def _average(folds: Mapping[int, Curve]) -> tuple[Array, Array]:
    tables = [dict(curve) for curve in folds.values()]
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    return np.array(shared), np.array([np.mean([table[epoch] for table in tables]) for epoch in shared])


def calibration_curve(confidence: Array, correct: Array, path: Path, error: float, bins: int = 15) -> Path:
    """How often the model is right when it is so sure, with the expected calibration error.

    Args:
        confidence: Probability given to the predicted class, (samples,).
        correct: Whether the prediction was right, (samples,).
        path: The file to write.
        error: The expected calibration error, as it is reported elsewhere.
        bins: Number of equally wide bins between 0 and 1; empty ones are left out.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    which = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    sure = np.bincount(which, confidence, bins)[filled] / counts[filled]
    right = np.bincount(which, correct, bins)[filled] / counts[filled]
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
        return save(figure, path)


def roc_curve(positive: Array, score: Array, path: Path) -> Path:
    """True against false positive rate over all thresholds, with the area under the curve.

    Args:
        positive: Whether the sample belongs to the positive class, (samples,).
        score: Score of each sample, (samples,): the higher, the more positive.
        path: The file to write.
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
        positive: Whether the sample belongs to the positive class, (samples,).
        score: Score of each sample, (samples,): the higher, the more positive.
        path: The file to write.
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
        return save(figure, path)


def _only_one_class(path: Path) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.2), layout="constrained")
        say(figure.add_subplot(), "only one class among the samples")
        return save(figure, path)
