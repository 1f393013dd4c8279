"""The forecast beside what came."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.data.series.baselines import last_season
from pipeline.drawing import MARK, STYLE, TRAIN, VALIDATION, save


def forecast(model: Any, split: Rows, windows: Mapping[int, str], spec: Spec, path: Path) -> Path:
    """Some windows of a split: what was known, what came, the forecast with its interval, and the last season.

    Args:
        model: The trained model.
        split: Windows.
        windows: Numbers of those that are drawn, with their titles.
        spec: Description of the series.
        path: The file to write.
    """
    rows = torch.tensor(list(windows))
    x, y = split.take(rows)
    with torch.no_grad():
        said = model(x.to(model.device)).float().cpu().numpy()
    before = last_season(split.subset(rows), spec).numpy()
    units = ((x[:, : -spec.horizon, 0] * x[:, :1, -1] + x[:, :1, -2]) * spec.target_std).numpy()
    half = None if model.settled.half_width is None else model.settled.half_widths(said)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 2.8 * len(rows)), layout="constrained")
        for number, title in enumerate(windows.values()):
            axis = figure.add_subplot(len(rows), 1, number + 1)
            past = units[number][-4 * spec.horizon :]
            steps = np.arange(1, spec.horizon + 1)
            axis.plot(np.arange(1 - len(past), 1), past, color=MARK, linewidth=1.2, label="known")
            axis.plot(steps, y[number].numpy(), color="black", linewidth=1.4, label="what came")
            axis.plot(
                steps, before[number], color=VALIDATION, linestyle=":", linewidth=1.2, label="as last season"
            )
            axis.plot(steps, said[number], color=TRAIN, linewidth=1.6, label="forecast")
            if half is not None:
                label = f"{100 * (model.settled.level or 0):g} % interval"
                ends = (said[number] - half[number], said[number] + half[number])
                axis.fill_between(steps, *ends, color=TRAIN, alpha=0.18, linewidth=0, label=label)
            axis.set(ylabel=spec.target_name)
            axis.set_title(title, fontsize="medium")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if number == 0:
                figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=5)
        axis.set(xlabel="steps from the forecast on")
        return save(figure, path)
