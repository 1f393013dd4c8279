"""Train a model, test it, record it: the way of one run from top to bottom."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.config.trackers import refuse_missing, trackers_of
from pipeline.errors import Diverged, Interrupted, UserError
from pipeline.process_life import process_start
from pipeline.runs import naming
from pipeline.runs.describing import (
    class_of,
    describe,
    final_metrics,
    guesses_of,
    keep_partial_plots,
    record_data,
    record_threads,
    resumed_at,
)
from pipeline.runs.hooks import Hooks
from pipeline.runs.keeping import keep
from pipeline.runs.length import OUT_OF_TIME, how_it_ended, long_enough, unfinished
from pipeline.runs.own_loop import fit_and_test_own, trains_here
from pipeline.runs.plan import RunPlan, plan_of
from pipeline.runs.recording import (
    AnyRun,
    git_state,
    is_main_process,
    open_run,
    recorded,
)
from pipeline.runs.result import RunResult
from pipeline.runs.state import RunState, read
from pipeline.runs.verdicts import unless_unfinished, verdicts_of

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.models.base import BaseModule
    from pipeline.runs.folded import Folded
    from pipeline.training.at_once import Fitted
    from pipeline.training.fit import Fit
    from pipeline.training.grown import Grown
    from pipeline.training.sureness import Wanted

log = logging.getLogger(__name__)


def train(cfg: DictConfig, hooks: Hooks | None = None) -> RunResult:
    """Train, test and record the model that ``cfg`` describes.

    A configuration with ``data.folds``, ``seeds`` or ``variants`` is several fits under one parent run.

    Args:
        cfg: Composed and checked configuration.
        hooks: What the caller adds.

    Returns:
        The result that also lies in the run directory as ``result.json``.

    Raises:
        UserError: The configuration or the data is wrong; nothing is left in the tracking store.
        Diverged: The loss became NaN or infinite.
        Interrupted: A signal came; the state was saved.
    """
    hooks = hooks or Hooks()
    directory = hooks.directory or output_directory()
    refuse_missing(cfg.logger)
    if trackers_of(cfg.logger) and is_main_process():
        from pipeline.tracking import start_sender

        # It imports the tracking library while this process imports torch.
        start_sender(Path(cfg.paths.experiments_dir))
    from pipeline.config.checks import check_classes
    from pipeline.runs.several import parts, train_many

    check_classes(cfg)
    if fits := parts(cfg):
        return train_many(cfg, fits, hooks, directory, train_one)
    return train_one(cfg, hooks, directory)


def output_directory() -> Path:
    """The run directory that Hydra made."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def train_one(cfg: DictConfig, hooks: Hooks, directory: Path) -> RunResult:
    """Run one fit and its test, recorded in ``directory``."""
    from pipeline.runs.folded import folds_of

    started = hooks.started or (process_start() if hooks.parent is None else time.time())
    plan = plan_of(cfg, hooks.threads.get("", ()))
    directory.mkdir(parents=True, exist_ok=True)
    state = RunState(directory)
    before = read(directory) if plan.resumes else {}
    resuming, longer = bool(before), before.get("status") == "finished"
    name = run_name(cfg, hooks)
    try:
        data, model = _prepared(plan, hooks)
    except UserError:
        raise
    except Exception:
        # Not the user's doing: worth a failed run that others can see.
        tracked = open_run(cfg, directory, hooks, name, resume=resuming)
        with recorded(tracked):
            raise
    asked = plan
    plan, notes = long_enough(plan, data)
    plan = replace(plan, bag_folds=folds_of(asked, data, model, hooks))
    tracked = open_run(cfg, directory, hooks, name, resume=resuming, longer=longer)
    state.begin(cfg)
    with recorded(tracked), state.ended_by():
        go = _fit_and_test if trains_here(model) else fit_and_test_own
        result = go(plan, hooks, directory, data, model, tracked, state if resuming else None, started)
        result.notes += notes
        if longer:
            epochs = before.get("max_epochs")
            result.notes.append(
                f"went on after {epochs} epochs, whose model was tested on the test split too"
            )
        if in_steps(model):
            result.notes += [] if notes else how_it_ended(asked, plan, data, result)
            result.unfinished = unfinished(asked, plan, result)
        if result.unfinished:
            result.verdicts = unless_unfinished(result.verdicts, result.unfinished)
    tracked.finish("FINISHED")
    if hooks.parent is None:
        tracked.wait(hooks.wait)
    result.run_id = tracked.run_id
    result.seconds["total"] = time.time() - started
    if is_main_process():
        result.write()
    state.finish()
    return result


def in_steps(model: BaseModule | Any) -> bool:
    """Whether a model of ours is trained in steps."""
    from pipeline.training.at_once import fits_at_once

    return trains_here(model) and not fits_at_once(model)


def run_name(cfg: DictConfig, hooks: Hooks) -> str:
    """The name of the run in the tracking store."""
    return hooks.tags.get("mlflow.runName") or naming.run_name(cfg, naming.typed_words())


def _prepared(plan: RunPlan, hooks: Hooks) -> tuple[DataModule, BaseModule | Any]:
    import pytorch_lightning as pl

    from pipeline.training.building import build_data, build_model, monitored
    from pipeline.training.features import is_frozen, learnt_from
    from pipeline.training.fit import start_from
    from pipeline.training.sureness import wanted
    from pipeline.training.trainer import quieten

    quieten()
    pl.seed_everything(plan.seed, verbose=False)
    data = build_data(plan.data, plan.model)
    if hooks.on_data:
        hooks.on_data(data)
    # Again: how many numbers the data drew must not decide the model's starting weights.
    pl.seed_everything(plan.seed, verbose=False)
    model = build_model(plan.model, data, plan.fit)
    if plan.start_from and is_frozen(model):
        # The features are those of the network that it begins with.
        start_from(model, plan.start_from)
    data = learnt_from(data, model, plan.fit.trainer)
    if trains_here(model):
        # A metric that nothing is known of is the user's mistake, and told before anything is recorded.
        monitored(plan.fit, data)
        wanted(data, plan.fit.metric)
    if hooks.on_model:
        hooks.on_model(data, model)
    return data, model


def _fit_and_test(
    plan: RunPlan,
    hooks: Hooks,
    directory: Path,
    data: DataModule,
    model: BaseModule,
    tracked: AnyRun,
    resumed: RunState | None,
    started: float,
) -> RunResult:
    from pipeline.runs.folded import in_folds
    from pipeline.training.at_once import fit_at_once, fits_at_once
    from pipeline.training.building import parameters
    from pipeline.training.features import is_frozen, solves_first
    from pipeline.training.fit import prepare_fit, run_fit, start_from
    from pipeline.training.sureness import wanted

    record_data(data, model, tracked, plan.fit)
    # A frozen network has begun with them already, and its last layer fits the features since.
    if plan.start_from and not is_frozen(model):
        start_from(model, plan.start_from)
    first = None
    if plan.train and solves_first(model) and not plan.start_from:
        plan, first = _solve_first(plan, data, model)

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        tracked.log_metrics(metrics, step=epoch)
        if hooks.on_epoch:
            hooks.on_epoch(epoch, metrics)

    def on_step(step: int, values: dict[str, float]) -> None:
        tracked.log_metrics(values, step=step, of_epochs=False)

    def on_rewind(checkpoint: Path) -> None:
        tracked.rewind(*resumed_at(checkpoint))

    fit = prepare_fit(
        plan.fit,
        data,
        model,
        directory,
        compiled=bool(plan.model.get("compile")),
        on_epoch=on_epoch,
        on_step=on_step,
        on_rewind=on_rewind,
    )
    result = RunResult(
        directory=directory,
        run_id=tracked.run_id,
        experiment=plan.name,
        data=describe(data),
        model={"class": class_of(model), "parameters": parameters(model), **_hyperparameters(model)},
        metrics={},
        baseline={},
        seconds={},
        samples_per_second=0.0,
        seed=plan.seed,
        git_commit=git_state()[0],
        guesses=guesses_of(data),
    )
    if first is not None:
        result.model |= first.facts
        result.notes.append(f"began with its last layer {first.note}")
    if plan.train and fits_at_once(model):
        _note_at_once(fit_at_once(fit), result)
        result.steps = fit.module.curve.points if fit.module.curve is not None else {}
    elif plan.train:
        checkpoint = resumed.checkpoint() if resumed else None
        if resumed is not None:
            tracked.rewind(*(resumed_at(checkpoint) if checkpoint else (0, 0)))
        try:
            run_fit(fit, checkpoint)
        except (Interrupted, Diverged):
            keep_partial_plots(fit, directory, tracked)
            raise
        _note_fit(fit, result)
        record_threads(tracked, {"": result.threads})
    result.seconds |= {"startup": (fit.started or time.time()) - started, "fit": fit.seconds, "test": 0.0}
    folded = None
    if plan.bag_folds:
        fit, folded = in_folds(plan, fit, result)
    tested = plan.test and hooks.test
    answers = validated = None
    if is_main_process():
        validated = _settle(fit, wanted(data, plan.fit.metric), hooks, result, folded)
    if tested and data.test is not None and is_main_process():
        answers = _test(fit, data.test, result)
    if is_main_process():
        if hooks.baseline:
            _baseline(data, result, tested=tested)
            result.verdicts = verdicts_of(
                data, fit.model, result.metrics, result.baseline, answers, validated
            )
        tracked.log_metrics(final_metrics(result))
        if hooks.reports:
            _report(fit, result, tracked, answers)
    return result


def _hyperparameters(model: BaseModule) -> dict[str, Any]:
    # What was found in the data is long, and stands in the saved model.
    return {key: value for key, value in model.hyperparameters.items() if key not in ("spec", "learnt")}


def _solve_first(plan: RunPlan, data: DataModule, model: BaseModule) -> tuple[RunPlan, Grown]:
    """Solve the last layer before everything is trained; the plan has what that leaves of its time."""
    from pipeline.training.features import begin_solved
    from pipeline.training.stopping import in_full, seconds_of

    began, limit = time.monotonic(), seconds_of(plan.fit.trainer.get("max_time"))
    first = begin_solved(data, model, plan.fit.trainer)
    if limit is not None:
        plan = plan.changed(trainer={"max_time": in_full(limit - (time.monotonic() - began))})
    return plan, first


def _note_fit(fit: Fit, result: RunResult) -> None:
    """Give the model the weights of its best epoch, and the result that epoch's metrics."""
    from pipeline.training.threads import in_words

    fit.checkpoints.restore_best(fit.module)
    recorder = fit.recorder
    result.history = recorder.history
    result.steps = fit.module.curve.points if fit.module.curve is not None else {}
    result.samples_per_second = recorder.samples / recorder.seconds if recorder.seconds else 0.0
    result.threads = [list(change) for change in fit.threads]
    result.notes += in_words(result.threads)
    if fit.module.clock is not None and fit.module.clock.words:
        result.notes.append(fit.module.clock.words)
    best = fit.checkpoints.best_epoch
    result.best_epoch = None if best is None or fit.checkpoints.monitor is None else best + 1
    for name, points in recorder.history.items():
        # Where not every epoch is validated, the best one's values may be those of the epoch before.
        until = [value for epoch, value in points if epoch <= (result.best_epoch or epoch)]
        if until and name.startswith(("train/", "val/")):
            result.metrics[name] = until[-1]


def _note_at_once(fitted: Fitted, result: RunResult) -> None:
    """What a fit at once came to: the metrics are those of the number of rounds that was kept."""
    result.history, result.samples_per_second = fitted.history, fitted.samples_per_second
    result.best_epoch = fitted.rounds
    result.model |= fitted.facts
    result.metrics |= {name: dict(points)[fitted.rounds] for name, points in fitted.history.items()}
    if fitted.cut:
        result.unfinished = OUT_OF_TIME
    if fitted.note:
        result.notes.append(fitted.note)
        log.info("%s: %s", result.model["class"], fitted.note)


def _settle(
    fit: Fit, asked: Wanted, hooks: Hooks, result: RunResult, folded: Folded | None
) -> tuple[Tensor, Tensor] | None:
    """Read off validation data how sure the model is; its figures there are those of the model as it was trained.

    Gives logits and targets of the validation split, None where nothing is held out.
    """
    from pipeline.training.scoring import scores
    from pipeline.training.sureness import settle

    data, model = fit.data, fit.model
    # Rows that it has learnt from would say that it is surer than it is.
    held_out = (
        None if data.train_on_all or fit.plan.trainer.get("limit_test_batches") == 0 else data.validation
    )
    answers = heard = None
    if folded is not None:
        # Every row has an answer of a fit that has not seen it.
        answers, heard = folded.validated, (folded.logits, folded.targets)
    elif held_out and (hooks.baseline or asked.needs_validation):
        answers = heard = _answers(fit, held_out)
    if hooks.settled is not None:
        model.settle(hooks.settled)
    elif not asked.needs_validation:
        model.settle(asked.decision())
        result.notes += asked.said(model.spec.classes)
    elif answers is not None and heard is not None:
        for name, value in scores(model, *answers).items():
            result.metrics.setdefault(f"val/{name}", value)
        found = settle(model, *heard, asked)
        model.settle(found.settled)
        result.notes += found.notes
    else:
        model.settle(asked.decision())
        result.notes += [
            *asked.said(model.spec.classes),
            "nothing is held out that says how sure the model is",
        ]
    if sureness := model.settled.to_dict():
        result.model["sureness"] = sureness
    return answers


def _test(fit: Fit, split: Rows, result: RunResult) -> tuple[Tensor, Tensor]:
    """Look at the test split once, for its metrics; gives logits and targets."""
    from pipeline.training.scoring import scores
    from pipeline.training.sureness import interval_words

    began = time.perf_counter()
    logits, targets = _answers(fit, split)
    found = scores(fit.model, logits, targets)
    result.metrics |= {f"test/{name}": value for name, value in found.items()}
    if "coverage" in found:
        settled, unit = fit.model.settled, fit.data.spec.target_unit
        said = interval_words(settled, unit)
        result.notes = [note for note in result.notes if note != said]
        result.notes.append(interval_words(settled, unit, found["coverage"]))
    result.seconds["test"] = time.perf_counter() - began
    return logits, targets


def _answers(fit: Fit, split: Rows) -> tuple[Tensor, Tensor]:
    """Logits and targets of every sample of a split."""
    from pipeline.training.evaluating import outputs_of
    from pipeline.training.memory import BatchParts

    parts = BatchParts(fit.data, fit.module, bool(fit.plan.trainer.get("auto_batch_size")))
    return parts.within(lambda: outputs_of(fit.trainer, fit.module, parts.loader_of(split)))


def _baseline(data: DataModule, result: RunResult, tested: bool) -> None:
    for position, (name, baseline) in enumerate(data.baselines().items()):
        found: dict[str, float] = {}
        if data.validation is not None and len(data.validation):
            found |= {
                f"val/{key}": value for key, value in baseline(data.train, data.validation, data.spec).items()
            }
        if tested and data.test is not None:
            found |= {
                f"test/{key}": value for key, value in baseline(data.train, data.test, data.spec).items()
            }
        if not found:
            found = {
                f"train/{key}": value for key, value in baseline(data.train, data.train, data.spec).items()
            }
        if position == 0:
            result.baseline = {"name": name, **found}
        else:
            result.baseline.setdefault("others", {})[name] = found
        prefix = "baseline" if position == 0 else f"baseline/{name}"
        result.metrics |= {
            f"{prefix}/{key.replace('/', '_') if position else key}": value for key, value in found.items()
        }


def _report(fit: Fit, result: RunResult, tracked: AnyRun, answers: tuple[Tensor, Tensor] | None) -> None:
    """Write plots and the saved model, and record them and the checkpoints in the tracking store."""
    from pipeline.training.watching import WRITTEN

    if (written := result.directory / WRITTEN).exists():
        tracked.log_artifact(written)
    keep(fit.data, fit.model, result, tracked, answers)
    if tracked.key:
        for checkpoint in (fit.checkpoints.best, fit.checkpoints.last):
            if checkpoint.exists():
                tracked.log_artifact(checkpoint, "checkpoints", link_only=True)
