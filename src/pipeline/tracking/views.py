"""The saved view of an experiment in MLflow's pages: its runs with what they reached and by what they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.metrics import direction
from pipeline.tracking.mlflow_inside import LONGEST_VIEW, SHARED_VIEW, view_column

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEADERBOARD = "leaderboard"
"""Key of the view of all runs of an experiment."""
OBJECTIVE_TAG, MODE_TAG = "objective", "objective.mode"
UNCOMPARED_TAG = "pipeline.uncompared"
STUDY_TAG, TRIAL_TAG = "sweep.study", "sweep.trial"

_SWEEP = "sweep-"

SETTINGS_SHOWN = 8
"""Largest number of settings that a view has a column for."""
_RUNS_READ = 500
_FIRST = ("model", "optimizer", "scheduler", "data", "trainer")


def objective_tags(metric: str, mode: str) -> dict[str, str]:
    """What a run says of the metric that it is compared by.

    Args:
        metric: Name, such as ``val/accuracy``.
        mode: Whether ``max`` or ``min`` of it is better.
    """
    return {OBJECTIVE_TAG: metric, MODE_TAG: mode}


def sweep_key(study: str) -> str:
    """Key of the view of a sweep's trials: its name, and a digest of it where a key cannot have all of its letters."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in study)
    return _SWEEP + (plain if plain == study else f"{plain}-{hashlib.sha256(study.encode()).hexdigest()[:6]}")


def studies(tags: Mapping[str, str]) -> list[str]:
    """The keys of the sweeps' views among the tags of an experiment."""
    start = SHARED_VIEW + _SWEEP
    return [name.removeprefix(SHARED_VIEW) for name in sorted(tags) if name.startswith(start)]


def recorded_name(metric: str) -> str:
    """The metric of a run as a whole: the one of its best epoch, not of the last."""
    return f"best/{metric}" if metric.startswith("val/") else metric


def differing(runs: Sequence[Mapping[str, str]], left_out: Collection[str]) -> list[str]:
    """The settings by which runs differ, those of the model first and the seed last.

    Args:
        runs: Settings of each run by dotted key.
        left_out: Settings and sections that tell nothing.
    """
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for params in runs:
        for key, value in params.items():
            values.setdefault(key, set()).add(value)
            counts[key] = counts.get(key, 0) + 1
    fits = sum(any(key.startswith("model.") for key in params) for params in runs)
    found = [
        key
        for key, seen in values.items()
        # What some runs do not have at all goes with the class that others have.
        if len(seen) > 1 and counts[key] * 2 > fits and not _is_part_of(key, left_out)
    ]
    return sorted(found, key=_place)


def _is_part_of(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _place(key: str) -> tuple[int, str]:
    section = key.partition(".")[0]
    return (99 if key == "seed" else _FIRST.index(section) if section in _FIRST else len(_FIRST)), key


def shown_runs(study: str | None) -> str:
    """The filter, in MLflow's language, of what a view lists.

    Args:
        study: Name of the sweep whose trials it lists; None for runs: a sweep is one of them, its trials are not, and
            neither are the fits of a run of several.
    """
    if study is None:
        return "tags.`mlflow.parentRunId` IS NULL"
    quote = '"' if "'" in study else "'"
    return f"tags.`{STUDY_TAG}` = {quote}{study}{quote} AND tags.`{TRIAL_TAG}` IS NOT NULL"


def view(
    objective: str,
    mode: str,
    settings: Sequence[str],
    metrics: Collection[str],
    study: str | None = None,
) -> dict[str, Any]:
    """The state of an experiment's page, as MLflow reads it.

    Args:
        objective: Metric that the runs are sorted by.
        mode: Whether ``max`` or ``min`` of it is better.
        settings: Dotted keys of the settings that get a column.
        metrics: Names of the metrics that the runs have.
        study: Name of the sweep whose trials are shown; None for the runs of the experiment.
    """
    best = recorded_name(objective)
    name = objective.partition("/")[2] or objective
    shown = [best, f"test/{name}", f"baseline/{objective}"]
    columns = [view_column("metrics", metric) for metric in shown if metric == best or metric in metrics]
    columns += [
        view_column("tags", "model") if key == "model._target_" else view_column("params", key)
        for key in settings[:SETTINGS_SHOWN]
    ]
    curves = [
        metric
        for metric in dict.fromkeys((objective, "val/loss", "train/loss"))
        if metric in {*metrics, objective}
    ]
    charts: list[dict[str, Any]] = [_line(metric) for metric in curves]
    numbers = [key for key in settings if key != "model._target_"]
    if numbers:
        charts.insert(0, _parallel(numbers[:SETTINGS_SHOWN], best))
    return {
        "searchFilter": shown_runs(study),
        "orderByKey": view_column("metrics", best),
        "orderByAsc": mode == "min",
        "lifecycleFilter": "Active",
        "selectedColumns": [*columns, view_column("attributes", "Dataset")],
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": "compared", "name": "Compared", "display": True, "isReordered": False}
        ],
        # Sections are sorted by name otherwise, and this one is to be the first.
        "isAccordionReordered": True,
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        **_card("LINE", f"line-{metric}"),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _parallel(settings: Sequence[str], metric: str) -> dict[str, Any]:
    return {
        **_card("PARALLEL", "parallel"),
        "selectedParams": list(settings),
        "selectedMetrics": [metric],
        "showAllRuns": True,
        "displayName": "Settings and what they reached",
    }


def _card(kind: str, uuid: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": uuid,
        "metricSectionId": "compared",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }


def save_view(client: MlflowClient, experiment_id: str, study: str | None = None) -> str | None:
    """Write the view of an experiment, or of one of its sweeps, as its runs are now.

    Args:
        client: Client of the tracking store.
        experiment_id: MLflow's id of the experiment.
        study: Name of a sweep, whose trials it lists; None for the runs of the experiment.

    Returns:
        The key that opens it; None where no run says what it is compared by, or the name of the sweep has both kinds of
        quotation marks.
    """
    if study and {"'", '"'} <= {*study}:
        # MLflow's language has no way to write such a name.
        return None
    runs = client.search_runs([experiment_id], shown_runs(study), max_results=_RUNS_READ)
    said = next((run.data.tags for run in runs if OBJECTIVE_TAG in run.data.tags), None)
    if said is None:
        # A sweep itself says nothing of the kind, its trials do.
        nested = client.search_runs([experiment_id], f"tags.`{OBJECTIVE_TAG}` IS NOT NULL", max_results=1)
        said = nested[0].data.tags if nested else None
    if said is None:
        return None
    left_out = next((tags[UNCOMPARED_TAG] for run in runs if UNCOMPARED_TAG in (tags := run.data.tags)), "")
    objective = said[OBJECTIVE_TAG]
    state = view(
        objective,
        said.get(MODE_TAG) or direction(objective),
        differing([run.data.params for run in runs], left_out.split()),
        {name for run in runs for name in run.data.metrics},
        study,
    )
    key = sweep_key(study) if study else LEADERBOARD
    text = json.dumps(state, separators=(",", ":"))
    tags = client.get_experiment(experiment_id).tags
    if len(text) <= LONGEST_VIEW and tags.get(SHARED_VIEW + key) != text:
        client.set_experiment_tag(experiment_id, SHARED_VIEW + key, text)
    return key
