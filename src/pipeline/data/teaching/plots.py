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


def held_bits(bits: Array, states: Array, delay: int) -> tuple[Array, Array]:
    """Which bit each hidden unit tells most of.

    Args:
        bits: Series that goes in, (steps,).
        states: Activation of each unit after each step, (steps, units).
        delay: Largest age of a bit that is looked at, in steps.

    Returns:
        The age of the bit with the largest correlation (0: the one just read), and that correlation; (units,) each.
    """
    rows = np.arange(delay, len(bits))
    bits, states = np.asarray(bits, dtype=float), np.asarray(states, dtype=float)
    correlations = np.zeros((delay + 1, states.shape[1]))
    for age in range(delay + 1):
        past, now = bits[rows - age], states[rows]
        past, now = past - past.mean(), now - now.mean(0)
        # A unit that stands still tells of nothing.
        size = np.sqrt((past**2).sum() * (now**2).sum(0))
        correlations[age] = np.divide(past @ now, size, out=np.zeros(now.shape[1]), where=size > 1e-12)
    age = np.abs(correlations).argmax(0)
    return age, correlations[age, np.arange(states.shape[1])]


def memory(bits: Array, states: Array, delay: int, path: Path, steps: int = 60) -> Path:
    """What the hidden units hold, step by step, under the bits that they have to hold.

    Args:
        bits: Series that goes in, (steps,); all of it is used to find which bit a unit tells most of.
        states: Activation of each unit after each step, (steps, units).
        delay: Distance of the echo in steps: so many bits have to be held.
        path: The file to write.
        steps: Number of steps that are drawn.
    """
    ages, strengths = held_bits(bits, states, delay)
    units = states.shape[1]
    drawn = min(steps, len(bits))
    past = np.full((delay + 1, drawn), np.nan)
    for age in range(delay + 1):
        past[age, age:] = bits[: drawn - age]
    # Units that tell of the same bit stand together, the surest first.
    order = np.lexsort((-np.abs(strengths), ages))[:32]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(10, 1.4 + 0.28 * (delay + 1 + len(order))), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[delay + 1, len(order)])
        above.imshow(past, aspect="auto", cmap="Greys", vmin=0, vmax=1.6, interpolation="nearest")
        above.set_yticks(range(delay + 1), ["bit now", *(f"bit {age} ago" for age in range(1, delay + 1))])
        shown = below.imshow(
            states[:drawn, order].T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest"
        )
        when = ["now", *(f"{age} ago" for age in range(1, delay + 1))]
        names = [f"unit {unit}: {when[ages[unit]]}, r = {strengths[unit]:+.2f}" for unit in order]
        below.set_yticks(range(len(order)), names)
        below.set_xlabel("step")
        figure.colorbar(shown, ax=below, pad=0.01)
        more = f" ({len(order)} of {units})" if len(order) < units else ""
        above.set_title(
            f"the bits to be held, and the hidden units{more} with the bit that each tells most of"
        )
        return save(figure, path)
