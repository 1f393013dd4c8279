"""Plots of the small teaching systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.drawing import COLOURS, MARK, STYLE, TRAIN, VALIDATION, save

if TYPE_CHECKING:
    from pipeline.drawing import Array


def decision_boundary(
    points: Array,
    labels: Sequence[int],
    predict: Callable[[Array], Array],
    path: Path,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Which class a model gives to each place of the plane, under the scatter of the points.

    Args:
        points: Points, (samples, 2).
        labels: Class index of each point.
        predict: Function from places (places, 2) to the class index of each.
        path: The file to write.
        class_names: Names by class index; None writes the indices.
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
        return save(figure, path)


def series_echo(inputs: Array, echo: Array, prediction: Array, path: Path, delay: int | None = None) -> Path:
    """A bit series, its echo and what the model says, one below the other; wrong bits are marked.

    Args:
        inputs: Series that goes in, (steps,).
        echo: Series that should come out, (steps,).
        prediction: Series that comes out, (steps,): bits or their probabilities (right and wrong are told at 0.5).
        path: The file to write.
        delay: Distance of the echo in steps, for the title.
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
        return save(figure, path)
