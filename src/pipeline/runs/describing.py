"""What a run says of itself: its data, its model, its figures as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.runs.environment import environment
from pipeline.runs.recording import AnyRun, is_main_process
from pipeline.runs.result import RunResult, defined
from pipeline.tracking.views import objective_tags

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.training.plan import FitPlan


def final_metrics(result: RunResult) -> dict[str, float]:
    """What is recorded of a run as a whole: its curves end with the last epoch, ``best/…`` is of the chosen one.

    What is undefined is left out.
    """
    return {
        f"best/{name}" if name.startswith("val/") else name: value
        for name, value in defined(result.metrics).items()
        if not name.startswith("train/")
    }


def resumed_at(checkpoint: Path) -> tuple[int, int]:
    """The last epoch (from 1) whose metrics were recorded before ``checkpoint`` was written, and its optimiser step."""
    from pipeline.training.checkpoints import load_checkpoint

    state = load_checkpoint(checkpoint)
    epoch = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return int(epoch), int(state["global_step"])


def record_data(data: DataModule, model: Any, tracked: AnyRun, plan: FitPlan) -> None:
    """Record what the run is about in the tracking store."""
    from pipeline.training.building import judged_by

    if data.known_spec is not None:
        # A model that trains itself may be judged by a metric that only its author knows.
        with suppress(UserError):
            tracked.set_tags(objective_tags(*judged_by(plan, data.known_spec, plan.metric)))
    tracked.set_tags({"data.requested": data.requested, "data.used": data.used, "model": class_of(model)})
    if not tracked.key:
        return
    spec = data.known_spec
    tracked.log_dataset(
        data.used,
        data.digest,
        data.source or data.used,
        "training",
        schema=spec.to_dict() if spec is not None and len(spec.classes) < 100 else None,
        profile={name: samples_in(getattr(data, name)) for name in ("train", "validation", "test")},
    )
    tracked.set_tags({"data.digest": data.digest})
    tracked.log_text(str(model), "model_summary.txt")
    # What a later reproduction is compared with.
    tracked.log_text(json.dumps(environment(), indent=2), ENVIRONMENT)


ENVIRONMENT = "environment.json"
"""The artifact that says what a run's result depends on beside configuration and data."""

THREADS = "threads.json"
"""The artifact that says how many threads computed each fit of a run."""


def record_threads(tracked: AnyRun, threads: Mapping[str, list[list[int]]]) -> None:
    """Record the numbers of threads of a run's fits by their names, for a repetition with the same ones."""
    if any(threads.values()):
        tracked.log_text(json.dumps(threads), THREADS)


def describe(data: DataModule) -> dict[str, Any]:
    """The data in a run's result."""
    spec = data.known_spec
    return {
        "requested": data.requested,
        "used": data.used,
        "digest": data.digest,
        **{name: samples_in(getattr(data, name)) for name in ("train", "validation", "test")},
        "target": "" if spec is None else spec.target_name,
        "unit": "" if spec is None else spec.target_unit,
    }


def guesses_of(data: DataModule) -> list[dict[str, Any]]:
    """What the data left open and was guessed, in a run's result."""
    return [guess.as_dict() for guess in getattr(data, "guesses", [])]


def keep_partial_plots(fit: Any, directory: Path, tracked: AnyRun) -> None:
    """Draw and record the learning curves of a fit that was cut off."""
    from pipeline.reports.curves import learning_curves, step_curves

    if not is_main_process():
        return
    if fit.recorder.history:
        path = directory / "plots" / "learning_curves.png"
        tracked.log_artifact(learning_curves(fit.recorder.history, None, path), "plots")
    curve = getattr(fit.module, "curve", None)
    if curve is not None and curve.points:
        path = directory / "plots" / "training_steps.png"
        tracked.log_artifact(step_curves(curve.points, path), "plots")


def class_of(model: Any) -> str:
    """The name of a model's class; of a network from elsewhere its own, not that of what is around it."""
    from pipeline.models.foreign import Foreign

    return type(model.net if isinstance(model, Foreign) else model).__name__


def samples_in(split: Any) -> int:
    """How many samples a split has; 0 where there is none."""
    return 0 if split is None else int(split.samples)
