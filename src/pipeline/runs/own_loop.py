"""The run of a LightningModule that trains itself: what needs no Spec is done for it as for any other model."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Interrupted, UserError
from pipeline.metrics import with_slash
from pipeline.runs.describing import describe, final_metrics, keep_partial_plots, record_data, resumed_at
from pipeline.runs.hooks import Hooks
from pipeline.runs.plan import RunPlan
from pipeline.runs.recording import AnyRun, git_state, is_main_process
from pipeline.runs.result import RunResult
from pipeline.runs.state import RunState

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.training.own_loop import OwnFit

log = logging.getLogger(__name__)


def trains_here(model: Any) -> bool:
    """Whether a model is trained by the step of this project, not by itself."""
    from pipeline.models.base import BaseModule

    return isinstance(model, BaseModule)


def fit_and_test_own(
    plan: RunPlan,
    hooks: Hooks,
    directory: Path,
    data: DataModule,
    module: Any,
    tracked: AnyRun,
    resumed: RunState | None,
    started: float,
) -> RunResult:
    """Train and test a person's LightningModule by Lightning's own loop.

    Args:
        plan: What the run is to do.
        hooks: What the caller adds.
        directory: Directory of the run.
        data: The data.
        module: The LightningModule.
        tracked: Run in the tracking store.
        resumed: State of the run that goes on, None for a new one.
        started: Time (seconds since 1970) at which the run began.
    """
    from pipeline.training.building import parameters
    from pipeline.training.fit import start_from
    from pipeline.training.own_loop import not_tested, prepare_own_fit, run_own_fit, test_own

    record_data(data, module, tracked, plan.fit)
    if plan.start_from:
        start_from(module, plan.start_from)

    def on_step(step: int, values: dict[str, float]) -> None:
        tracked.log_metrics(values, step=step, of_epochs=False)

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        # What has a curve over steps keeps it: one name has one scale.
        tracked.log_metrics(
            {name: value for name, value in values.items() if name not in fit.steps.names}, step=epoch
        )
        if hooks.on_epoch:
            hooks.on_epoch(epoch, values)

    fit = prepare_own_fit(
        plan.fit,
        data,
        module,
        directory,
        on_epoch=on_epoch,
        on_step=on_step,
        on_file=tracked.log_artifact,
        run_id=tracked.run_id,
    )
    result = RunResult(
        directory=directory,
        run_id=tracked.run_id,
        experiment=plan.name,
        data=describe(data),
        model={"class": type(module).__name__, "parameters": parameters(module), **_settings(plan)},
        metrics={},
        baseline={},
        seconds={},
        samples_per_second=0.0,
        seed=plan.seed,
        git_commit=git_state()[0],
    )
    if plan.train:
        checkpoint = resumed.checkpoint() if resumed else None
        if resumed is not None:
            tracked.rewind(*(resumed_at(checkpoint) if checkpoint else (0, 0)))
        try:
            run_own_fit(fit, checkpoint)
        except Interrupted:
            keep_partial_plots(fit, directory, tracked)
            raise
        result.model["parameters"] = parameters(module)
        _note_fit(fit, result)
        result.data |= _sizes(fit)
    result.seconds |= {"startup": (fit.started or time.time()) - started, "fit": fit.seconds, "test": 0.0}
    # All processes of a training test together: Lightning's loop waits for each of them.
    if plan.test and hooks.test and (data.test is not None or hasattr(data, "inner")):
        began = time.perf_counter()
        found = test_own(fit)
        if why := not_tested(fit):
            result.notes.append(f"not tested: {why}")
        result.metrics |= {name: value for name, value in found.items() if name not in result.metrics}
        result.seconds["test"] = time.perf_counter() - began
    if is_main_process():
        tracked.log_metrics(final_metrics(result))
        if hooks.reports:
            _report(fit, result, tracked)
    return result


def _settings(plan: RunPlan) -> dict[str, Any]:
    return {name: value for name, value in plan.model.items() if not name.startswith("_")}


def _note_fit(fit: OwnFit, result: RunResult) -> None:
    """Give the module the weights of its best epoch, and the result everything that was logged at it."""
    fit.checkpoints.restore_best(fit.module)
    recorder = fit.recorder
    result.history = recorder.history
    result.samples_per_second = recorder.samples / recorder.seconds if recorder.seconds else 0.0
    best = fit.checkpoints.best_epoch
    result.best_epoch = None if best is None or fit.checkpoints.monitor is None else best + 1
    if fit.checkpoints.monitor:
        result.notes.append(f"best epoch by {fit.checkpoints.monitor} ({fit.checkpoints.mode})")
    for name, points in recorder.history.items():
        until = [value for epoch, value in points if epoch <= (result.best_epoch or epoch)]
        if until and not name.endswith("_step"):
            result.metrics[name] = until[-1]


def _sizes(fit: OwnFit) -> dict[str, int]:
    """Numbers of samples, as far as the loaders that were used say them."""
    held_out = fit.trainer.val_dataloaders
    used = {
        "train": fit.trainer.train_dataloader,
        "validation": held_out[0] if isinstance(held_out, list) and held_out else held_out,
    }
    found = {}
    for name, loader in used.items():
        dataset = getattr(loader, "dataset", None)
        if hasattr(dataset, "__len__"):
            found[name] = len(dataset)  # type: ignore[arg-type]
    return found


def _report(fit: OwnFit, result: RunResult, tracked: AnyRun) -> None:
    from pipeline.reports.curves import learning_curves

    folder = result.directory / "plots"
    folder.mkdir(exist_ok=True)
    if result.history:
        history = {with_slash(name): points for name, points in result.history.items()}
        path = learning_curves(history, result.best_epoch, folder / "learning_curves.png")
        tracked.log_artifact(path, "plots")
    if tracked.key:
        for checkpoint in (fit.checkpoints.best, fit.checkpoints.last):
            if checkpoint.exists():
                tracked.log_artifact(checkpoint, "checkpoints", link_only=True)


def need_spec(what: str, model: Any) -> UserError:
    """The error of a task that needs a network that this project trains."""
    return UserError(
        f"{what} needs a network that this project trains, but {type(model).__name__} is a LightningModule that trains "
        "itself; give its network alone as model._target_"
    )
