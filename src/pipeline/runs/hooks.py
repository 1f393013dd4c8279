"""What a caller of a task may add to it: a sweep to its trials, a cross-validation to its folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.models.settled import Settled
    from pipeline.tracking import Reference, Run


@dataclass
class Hooks:
    """Additions to one training run.

    Args:
        on_epoch: Function called after every epoch with its number (from 1) and its metrics; what it raises ends the
            fit and comes out of it unchanged. An exception may say in ``tracking_status`` how the run is recorded.
        on_data: Function called once with the data module when it is ready.
        on_model: Function called once with the data module and the model before the fit.
        on_fold: Function called after every fold of a cross-validation with its number (from 0) and its metrics.
        parent: The tracked run that this one is nested under.
        tags: Tags that are added to the run's.
        directory: Directory of the run; None for Hydra's output directory.
        reports: Whether to write plots and log the model.
        wait: Time to wait at the end for the tracking server, in seconds.
        started: Time (seconds since 1970) at which the run was asked for; None for the start of the process.
        baseline: Whether to compute the common-sense baseline.
        test: Whether to test at the end where the configuration asks for it; a ladder looks at the test split later,
            for all of its rungs at once.
        threads: Numbers of threads that each fit is to compute with (:data:`pipeline.training.threads.Schedule`), by
            the fit's name, "" for a run of a single one; a fit that is not named finds its own.
        settled: How sure the model is, where nothing is held out to tell it by; None to read it off validation data.
    """

    on_epoch: Callable[[int, dict[str, float]], None] | None = None
    on_data: Callable[[Any], None] | None = None
    on_model: Callable[[Any, Any], None] | None = None
    on_fold: Callable[[int, dict[str, float]], None] | None = None
    parent: Run | Reference | None = None
    tags: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None
    reports: bool = True
    wait: float = 60.0
    started: float | None = None
    baseline: bool = True
    test: bool = True
    settled: Settled | None = None
    threads: Mapping[str, list[list[int]]] = field(default_factory=dict)
