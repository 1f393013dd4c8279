"""Optuna's plots of a study: one page with all of them to click through, and each as a picture."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna

from pipeline.files import write_text
from pipeline.sweeps.time_limit import seconds_left

log = logging.getLogger(__name__)

T = TypeVar("T")

# Name, title, the name in both of Optuna's plot modules, and whether it needs a target for several objectives.
_PLOTS = (
    ("history", "Optimisation history", "plot_optimization_history", True),
    ("importances", "Parameter importances", "plot_param_importances", True),
    ("slice", "Slice", "plot_slice", True),
    ("parallel_coordinates", "Parallel coordinates", "plot_parallel_coordinate", True),
    ("contour", "Contour", "plot_contour", True),
    ("intermediate_values", "Intermediate values", "plot_intermediate_values", False),
    ("edf", "Empirical distribution", "plot_edf", True),
)
# A contour of every pair of many parameters takes minutes and cannot be read.
_CONTOUR_PARAMETERS = 4
_LEGEND_LINES = 12
# What drawing needs to begin (imports), and for one plot.
_SECONDS, _ONE_SECONDS = 2.0, 0.7
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font-family:sans-serif;margin:2em auto;max-width:1100px}}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""


def write_plots(
    study: optuna.Study, metrics: list[str], directory: Path, ends: float | None = None
) -> list[Path]:
    """Write `study.html` (all plots, works without a network) and a PNG of each.

    Plots that this study has no data for (importances of one trial, intermediate values of several objectives) are
    left out.

    Args:
        study: Study with at least one completed trial.
        metrics: Names of the objectives, for the axes.
        directory: Directory that receives the files.
        ends: When the command has to end (seconds since 1970), with what there is time for; None for no limit.

    Returns:
        The files written.
    """
    if seconds_left(ends, _SECONDS) < _SECONDS:
        log.warning("The time is up (hydra.sweeper.timeout): no plots; the same command again writes them")
        return []
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    sections: list[str] = []
    with warnings.catch_warnings(), _quiet_optuna():
        warnings.simplefilter("ignore")
        for name, title, function, targeted in _PLOTS:
            if name == "intermediate_values" and len(metrics) > 1:
                continue
            if seconds_left(ends, _ONE_SECONDS) < _ONE_SECONDS:
                log.warning(
                    "The time is up (hydra.sweeper.timeout): plots from %s on are left out; the same command again "
                    "writes them",
                    name,
                )
                break
            arguments = _arguments(study, name, metrics, targeted)
            picture = partial(_picture, study, function, arguments, directory / f"{name}.png")
            section = partial(_section, study, function, arguments, title, first=not sections)
            files += _attempt(name, picture)
            sections += _attempt(name, section)
    html = _PAGE.format(title=f"Study {study.study_name}", body="\n".join(sections))
    page = write_text(directory / "study.html", html)
    return [page, *files]


def _arguments(study: optuna.Study, name: str, metrics: list[str], targeted: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if targeted:
        arguments["target_name"] = metrics[0]
        if len(metrics) > 1:
            arguments["target"] = lambda trial: trial.values[0]
    if name == "contour":
        arguments["params"] = _contour_parameters(study)
    return arguments


def _contour_parameters(study: optuna.Study) -> list[str] | None:
    names = {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
    if len(names) <= _CONTOUR_PARAMETERS:
        return None
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    return list(optuna.importance.get_param_importances(study, target=target))[:_CONTOUR_PARAMETERS]


def _attempt(name: str, make: Callable[[], T]) -> list[T]:
    try:
        return [make()]
    except Exception as error:
        # A study of one trial or one parameter has no importances and no contour: the others are still worth having.
        log.debug("No plot %s: %s", name, error)
        return []


def _picture(study: optuna.Study, function: str, arguments: dict[str, Any], path: Path) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import optuna.visualization.matplotlib as drawing

    # Optuna chooses a style for the whole process, which is not over with the sweep.
    with mpl.rc_context():
        axes = np.atleast_2d(getattr(drawing, function)(study, **arguments))
        figure = axes[0, 0].figure
        try:
            _make_legible(axes)
            figure.savefig(path, dpi=100, bbox_inches="tight")
        finally:
            plt.close(figure)
    return path


def _make_legible(axes: Any) -> None:
    """Give each of several panels (rows × columns) room, and remove a legend that is longer than the plot is high."""
    rows, columns = axes.shape
    if axes.size > 1:
        axes[0, 0].figure.set_size_inches(3.5 * columns, max(3.5 * rows, 4.5))
    for panel in axes.flat:
        if axes.size > 1:
            panel.label_outer()
            panel.tick_params("x", which="both", rotation=45)
        legend = panel.get_legend()
        if legend is not None and len(legend.get_texts()) > _LEGEND_LINES:
            legend.remove()


def _section(study: optuna.Study, function: str, arguments: dict[str, Any], title: str, first: bool) -> str:
    from optuna import visualization

    figure = getattr(visualization, function)(study, **arguments)
    figure.update_layout(title=None)
    # The library (4 MB) goes into the page once, so that it opens anywhere.
    html = figure.to_html(full_html=False, include_plotlyjs=first)
    return f"<h2>{title}</h2>\n{html}"


class _quiet_optuna:
    """Silences Optuna, which warns of plots with too little data, and Matplotlib, which tells of axes of words."""

    def __enter__(self) -> None:
        self._level = optuna.logging.get_verbosity()
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def __exit__(self, *_: object) -> None:
        optuna.logging.set_verbosity(self._level)
