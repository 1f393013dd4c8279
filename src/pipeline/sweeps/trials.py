"""What a trial does: train as its configuration says, report every epoch or fold, and leave the test split alone."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from pipeline.config.trackers import trackers_of
from pipeline.runs.hooks import Hooks
from pipeline.runs.recording import reopen_run
from pipeline.sweeps.running import Context, Outcome, Pruned, TooLarge, as_outcome, load_function

TRIAL = "pipeline.sweeps.trials.train_trial"
JOB = "pipeline.sweeps.trials.run_job"
RUN_TASK = "pipeline.tasks.run_task"
"""The tasks stand on a floor above this one, so that what runs any of them is known by its name."""


def train_trial(config: DictConfig, context: Context) -> Outcome:
    """One trial of a sweep: no plots and no saved model, which the winner gets when it is run again.

    Raises:
        Pruned: The trial is worse than the others; its run was tagged.
        TooLarge: The model breaks the sweep's limit.
    """
    from pipeline.runs.train import output_directory, train

    config.trainer.enable_progress_bar = False
    sizes: dict[str, float] = {}

    def on_model(data: Any, model: Any) -> None:
        from pipeline.training.building import parameters

        sizes["parameters"] = float(parameters(model))
        if context.max_parameters is not None and sizes["parameters"] > context.max_parameters:
            raise TooLarge(int(sizes["parameters"]), context.max_parameters)

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if not context.by_fold:
            context.on_report(epoch - 1, metrics)

    def on_fold(fold: int, metrics: dict[str, float]) -> None:
        if context.by_fold:
            context.on_report(fold, metrics)

    hooks = Hooks(
        on_epoch=on_epoch,
        on_fold=on_fold,
        on_model=on_model,
        parent=context.parent,
        tags={**context.tags, "mlflow.runName": f"trial-{context.number} {context.settings}".strip()},
        reports=False,
    )
    try:
        result = train(config, hooks)
    except Pruned:
        if trackers_of(config.logger):
            reopen_run(config, output_directory(), {"sweep.state": "pruned"}).finish("FINISHED")
        raise
    outcome = as_outcome(result)
    outcome.metrics |= {**sizes, "fit_seconds": float(result.seconds.get("fit", 0.0))}
    return outcome


def run_job(config: DictConfig, context: Context) -> Outcome:
    """One job of a plain multirun: the whole task, as it would run alone."""
    if config.task.name != "train":
        return as_outcome(load_function(RUN_TASK)(config))
    from pipeline.runs.train import train

    config.trainer.enable_progress_bar = False

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        context.on_report(epoch - 1, metrics)

    hooks = Hooks(on_epoch=on_epoch, parent=context.parent, tags=dict(context.tags))
    return as_outcome(train(config, hooks))
