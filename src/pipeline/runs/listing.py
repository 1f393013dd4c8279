"""Runs of a tracking store side by side: what each reached, how sure that is, and by which settings they differ."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from pipeline import metrics
from pipeline.runs.conditions import check_known, conditions, looked_up
from pipeline.runs.settings import NOT_COMPARED
from pipeline.tracking.views import MODE_TAG, OBJECTIVE_TAG, STUDY_TAG, differing, recorded_name

if TYPE_CHECKING:
    from pipeline.tracking.queries import RunRecord, Store

READ = 5000
"""So many of the newest runs are looked at."""


@dataclass(frozen=True)
class Row:
    """One run among others.

    Args:
        run_id: MLflow's id.
        name: Name of the run.
        experiment: Name of its experiment.
        state: ``finished``, ``running``, ``failed``, ``killed`` or ``pruned``.
        objective: Metric that it is judged by, empty where it says none.
        mode: Whether ``max`` or ``min`` of it is better.
        value: What it reached on validation data; None where it reached nothing yet.
        low, high: Ends of the 95 % interval of a share (Wilson's, by the number of validation samples), or of the mean
            over several fits less and plus their standard deviation; None where neither is known.
        test: The same metric on test data.
        baseline: The common-sense baseline's, on validation data.
        model: Class of the model.
        data: Data set.
        started: When it began, in seconds since 1970.
        seconds: How long it took, so far.
        params: All settings by dotted key.
        metrics: Last value of each metric.
        tags: Words that it was tagged with.
        settings: The settings by which the listed runs differ.
    """

    run_id: str
    name: str
    experiment: str
    state: str
    objective: str
    mode: str
    value: float | None
    low: float | None
    high: float | None
    test: float | None
    baseline: float | None
    model: str
    data: str
    started: float
    seconds: float
    params: dict[str, str] = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    tags: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Everything that a condition may ask for, by name."""
        own = {name: getattr(self, name) for name in ("name", "experiment", "state", "data", "seconds")}
        best = {
            name.removeprefix("best/"): value
            for name, value in self.metrics.items()
            if name.startswith("best/")
        }
        return {**self.params, **self.metrics, **best, **own, "model": self.model}

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        values = asdict(self)
        del values["params"]
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        } | {"metrics": {name: value for name, value in self.metrics.items() if math.isfinite(value)}}


def listed(
    store: Store,
    *,
    where: str | None = None,
    experiment: str | None = None,
    sweep: str | None = None,
    tag: str | None = None,
    nested: bool = False,
) -> list[Row]:
    """The runs that are asked for, the best of each objective first.

    Args:
        store: Tracking store.
        where: Condition, see :mod:`pipeline.runs.conditions`.
        experiment: Name of the experiment; None for all.
        sweep: Name of a sweep, whose trials are listed.
        tag: Word that the runs are tagged with.
        nested: Whether trials of sweeps and fits of runs are listed too.

    Raises:
        UserError: The condition cannot be read, or names what no run has.
    """
    asked = conditions(where)
    records = store.runs(experiments=None if experiment is None else [experiment], limit=READ)
    rows = [
        row_of(record)
        for record in records
        if (nested or sweep is not None or "mlflow.parentRunId" not in record.tags)
        and (sweep is None or (record.tags.get(STUDY_TAG) == sweep and "sweep.trial" in record.tags))
        and (tag is None or f"tag.{tag}" in record.tags)
    ]
    if asked:
        facts = [row.facts() for row in rows]
        check_known(asked, set().union(*facts))
        rows = [
            row
            for row, found in zip(rows, facts, strict=True)
            if all(one.holds(looked_up(one.key, found)) for one in asked)
        ]
    return with_settings(sorted(rows, key=_order))


def with_settings(rows: Sequence[Row]) -> list[Row]:
    """The rows with the settings by which they differ."""
    keys = differing([row.params for row in rows], NOT_COMPARED)
    return [
        replace(row, settings={key: row.params[key] for key in keys if key in row.params}) for row in rows
    ]


def _order(row: Row) -> tuple[str, bool, float, float]:
    value = math.nan if row.value is None else row.value
    missing = math.isnan(value)
    better = 0.0 if missing else (-value if row.mode == "max" else value)
    return row.objective, missing, better, -row.started


def row_of(record: RunRecord) -> Row:
    """What a list says of one run."""
    found, tags = record.metrics, record.tags
    objective = tags.get(OBJECTIVE_TAG, "")
    if not objective:
        # Of earlier versions, and of the runs that several fits make.
        names = [
            name.removeprefix("best/") for name in found if name.removeprefix("best/").startswith("val/")
        ]
        objective = metrics.judged_by(names) or ""
    name = objective.partition("/")[2]
    value = found.get(recorded_name(objective), found.get(objective))
    low, high = _interval(value, found.get(f"{objective}_std"), name, record.samples.get("validation"))
    mode = tags.get(MODE_TAG) or ("max" if objective and metrics.higher_is_better(objective) else "min")
    ended = record.ended if record.ended is not None else time.time()
    return Row(
        run_id=record.run_id,
        name=record.name,
        experiment=record.experiment,
        state="pruned" if tags.get("sweep.state") == "pruned" else record.status.lower(),
        objective=objective,
        mode=mode,
        value=value,
        low=low,
        high=high,
        test=found.get(f"test/{name}"),
        baseline=found.get(f"baseline/{objective}"),
        model=tags.get("model", ""),
        data=tags.get("data.used", ""),
        started=record.started,
        seconds=max(0.0, ended - record.started),
        params=record.params,
        metrics=found,
        tags=[tag.removeprefix("tag.") for tag in tags if tag.startswith("tag.")],
    )


def _interval(
    value: float | None, deviation: float | None, name: str, samples: int | None
) -> tuple[float | None, float | None]:
    if value is None or not math.isfinite(value):
        return None, None
    if deviation is not None:
        return value - deviation, value + deviation
    metric = metrics.find(name)
    if (
        metric is None
        or metric.kind != "share"
        or not metric.per_prediction
        or not samples
        or not 0 <= value <= 1
    ):
        return None, None
    return wilson(value, samples)


def wilson(share: float, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of independent samples (E. B. Wilson, JASA 22, 1927).

    Args:
        share: Share that was observed, 0 to 1.
        samples: Number of samples.
        confidence: Probability with which the interval holds the true share.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return middle - half, middle + half
