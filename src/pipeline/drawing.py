"""Plots as image files: every function takes plain arrays or dictionaries and returns the path it wrote.

The file's kind follows from the path's suffix (`.png`, `.svg`, `.pdf`). Figures are made without pyplot:
nothing is left to close, and no display is needed. NaN in a curve is a gap; empty input gives a plot that
says so, never an error: a run that was interrupted early still leaves its plots.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
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


def pixels_of(image: Array) -> Array:
    """An image of either layout as Matplotlib shows it: (height, width), or (height, width, 3) where it has colours."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = image.transpose(1, 2, 0)
    return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image


def show_image(axis: Axes, image: Array, extent: tuple[float, float, float, float] | None = None) -> None:
    pixels = pixels_of(image)
    axis.imshow(pixels, cmap="gray_r" if pixels.ndim == 2 else None, extent=extent)
    axis.set_axis_off()


def columns(curve: Curve) -> tuple[Array, Array]:
    pairs = np.asarray(list(curve), dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def say(axis: Axes, words: str) -> None:
    axis.text(0.5, 0.5, words, ha="center", va="center", transform=axis.transAxes, color=MARK)
    axis.set_axis_off()


def save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A quarter of the time of the usual level, for files that are a sixth larger.
    packing: dict[str, Any] = {"pil_kwargs": {"compress_level": 2}} if path.suffix == ".png" else {}
    figure.savefig(path, facecolor="white", **packing)
    return path
