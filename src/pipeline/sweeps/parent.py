"""The study's own run in the tracking store, which its trials are nested under."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from pipeline.errors import UserError
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.time_limit import seconds_left
from pipeline.tracking import Reference, Run, absolute_uri, life, recover
from pipeline.tracking.sender_link import end_by, link

log = logging.getLogger(__name__)

_PARENT = "sweep:parent"
_WAIT_SECONDS = 60.0


class NoParent:
    """Stands in where nothing is tracked."""

    reference: tuple[str, str] | None = None

    def start(self, plan: Plan, study: optuna.Study) -> None:
        """Nothing to start."""

    def recover(self) -> None:
        """Nothing to recover."""

    def finish(self, plan: Plan, metrics: Mapping[str, float], files: Sequence[Path], status: Any) -> None:
        """Nothing to finish."""

    def wait(self, trials: Sequence[FrozenTrial], ends: float | None = None) -> None:
        """Nothing to wait for."""


class Parent:
    """The tracked run of a study.

    One process owns it; another one that joins the same study on this machine nests its trials under it.

    Args:
        experiment: MLflow experiment that the run belongs to.
        name: Name of the run.
        tracking_uri: Address of the tracking store, as configured.
        experiments_dir: Directory in which runs are kept track of.
        tags: Tags of the run.
        params: What is recorded of the sweep's configuration.
        nested_under: Run that this one is a part of.
        trackers: Trackers that are told of it.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        tracking_uri: str | None,
        experiments_dir: Path,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        nested_under: Reference | None = None,
        trackers: Sequence[str] = ("mlflow",),
    ) -> None:
        self._experiment = experiment
        self._name = name
        self._uri = tracking_uri
        self._experiments_dir = experiments_dir
        self._tags = tags
        self._params = params
        self._nested_under = nested_under
        self._trackers = trackers
        self._run: Run | None = None
        self.reference: tuple[str, str] | None = None

    def start(self, plan: Plan, study: optuna.Study) -> None:
        """Begin the run, or go on with the one that the study has."""
        directory = Path(plan.directory)
        known = life(directory)
        recover(self._experiments_dir)
        try:
            self._run = Run.start(
                directory,
                experiment=self._experiment,
                name=self._name,
                tracking_uri=self._uri,
                experiments_dir=self._experiments_dir,
                parent=self._nested_under,
                tags={**self._tags, "sweep.study": plan.study_name},
                resume=True,
                system_metrics=False,
                trackers=self._trackers,
            )
        except UserError:
            # Another process of this machine runs the same study and owns the run.
            self.reference = (known.key, str(directory)) if known.key else None
            return
        if known.key is None:
            self._run.log_params(self._params)
        self.reference = (self._run.key, str(directory))
        study.set_user_attr(_PARENT, list(self.reference))

    def recover(self) -> None:
        """Have the runs of workers that vanished marked as killed."""
        for directory in recover(self._experiments_dir):
            uri = (
                absolute_uri(self._uri, self._experiments_dir.absolute())
                if "mlflow" in self._trackers
                else ""
            )
            link(self._experiments_dir.absolute()).watch(directory, uri)

    def finish(self, plan: Plan, metrics: Mapping[str, float], files: Sequence[Path], status: Any) -> None:
        """Record what the study came to, and end the run."""
        self.recover()
        if self._run is None:
            return
        self._run.log_metrics(metrics)
        for file in files:
            self._run.log_artifact(file, "plots" if file.parent.name == "plots" else "")
        self._run.finish(status, None if status != "FAILED" else "trials failed: see trials.yaml")

    def wait(self, trials: Sequence[FrozenTrial], ends: float | None = None) -> None:
        """Wait for the tracking server to take the study and what its trials recorded, a minute at most.

        Args:
            trials: Trials of the study.
            ends: Time (seconds since 1970) until which it may wait, and the end of the process after it; None for no
                limit.
        """
        end_by(ends)
        if self._run is None:
            return
        places = [trial.user_attrs.get("directory") for trial in trials]
        directories = [Path(place) for place in places if place and life(Path(place)).key is not None]
        if not link(self._experiments_dir.absolute()).wait(
            [self._run.directory, *directories], seconds_left(ends, _WAIT_SECONDS)
        ):
            log.warning(
                "The tracking server has not taken every record yet. They are kept; deliver them with:"
                " python -m pipeline task=sync"
            )
