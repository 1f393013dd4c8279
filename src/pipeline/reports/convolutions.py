"""What the convolutions of a network look for, and what they find in one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipeline.drawing import STYLE, save, show_image

if TYPE_CHECKING:
    from pipeline.drawing import Array

CHANNELS = 8
"""Channels of each convolution that are shown."""


def convolutions(image: Array, layers: Sequence[tuple[str, Array, Array]], path: Path) -> Path:
    """The filters of each convolution, and below them what each gives for one image: blue above 0, red below.

    Args:
        image: The image, (channels, height, width).
        layers: Name of each convolution, its weights (out channels, in channels, height, width), shown by their mean
            over the in-channels, and its outputs for the image (out channels, height, width).
        path: The file to write.
    """
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        # Placed by hand: a layout that looks for room takes seconds for so many axes.
        figure = Figure(figsize=(11, 2.35 * len(layers) + 0.2))
        parts = figure.subfigures(len(layers), 2, width_ratios=[1, CHANNELS], squeeze=False)
        for (name, weights, outputs), (left, right) in zip(layers, parts, strict=True):
            left.subplots_adjust(0.06, 0.02, 0.94, 0.88)
            right.subplots_adjust(0.01, 0.02, 0.99, 0.88, wspace=0.08, hspace=0.08)
            axis = left.add_subplot()
            show_image(axis, image)
            axis.set_title(name, fontsize=9)
            for row, pictures in enumerate((np.asarray(weights).mean(axis=1), np.asarray(outputs))):
                limit = float(np.abs(pictures).max()) or 1.0
                for column, picture in enumerate(pictures[:CHANNELS]):
                    place = right.add_subplot(2, CHANNELS, row * CHANNELS + column + 1)
                    place.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
                    place.set_axis_off()
                    if row == 0:
                        place.set_title(str(column), fontsize=9)
        return save(figure, path)
