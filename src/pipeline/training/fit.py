"""One fit: the trainer with everything beside the training step, and what happens when the loss diverges."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping

from pipeline.config import build
from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Rows
from pipeline.data.images.augment import small
from pipeline.errors import Diverged, UserError, reason_of
from pipeline.models.base import BaseModule
from pipeline.training.building import monitored, optimisation
from pipeline.training.checkpoints import Checkpoints, load_checkpoint
from pipeline.training.memory import BatchParts, is_out_of_memory
from pipeline.training.module import TrainingModule
from pipeline.training.network_in_tensorboard import NetworkInTensorBoard
from pipeline.training.plan import FitPlan, Node
from pipeline.training.profiling import lightning_profiler, profiled
from pipeline.training.progress import Progress
from pipeline.training.recorder import Recorder
from pipeline.training.scoring import needs_every_output
from pipeline.training.signals import Signals
from pipeline.training.softening import softening
from pipeline.training.step_curve import StepCurve
from pipeline.training.threads import Threads
from pipeline.training.trainer import build_trainer, steps_per_call

log = logging.getLogger(__name__)

MAX_LOWERED = 3


@dataclass
class Fit:
    """A fit that is going on or has ended.

    Args:
        plan: What it is to do.
        data: The data that it trains on.
        module: The model with its training.
        trainer: Lightning's trainer.
        recorder: The history of its metrics.
        checkpoints: Its best and last state.
        chunk: Number of batches in one step of Lightning's.
        on_rewind: Function called with the checkpoint that the fit goes back to.
        seconds: Time that it took.
        started: Time (seconds since 1970) at which training began.
        threads: Numbers of threads that computed it, each with the optimiser step that it began with.
    """

    plan: FitPlan
    data: DataModule
    module: TrainingModule
    trainer: pl.Trainer
    recorder: Recorder
    checkpoints: Checkpoints
    chunk: int = 1
    on_rewind: Callable[[Path], None] | None = None
    seconds: float = 0.0
    started: float = 0.0
    threads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def model(self) -> BaseModule:
        """The network that is trained."""
        return self.module.model


def prepare_fit(
    plan: FitPlan,
    data: DataModule,
    model: BaseModule,
    directory: Path,
    *,
    compiled: bool = False,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_rewind: Callable[[Path], None] | None = None,
) -> Fit:
    """The trainer and its callbacks for one fit.

    Args:
        plan: What the fit is to do.
        data: The data to train on.
        model: The network to train.
        directory: Directory of the run.
        compiled: Whether the model's forward pass is compiled for the training.
        on_epoch: Function called after every epoch with its number (from 1) and its metrics.
        on_step: Function called at every point within epochs with the optimiser step (from 1) and its values.
        on_rewind: Function called with the checkpoint that the fit goes back to.

    Raises:
        UserError: A setting cannot be used here.
    """
    settings = dict(plan.trainer)
    metric, mode = monitored(plan, data)
    recorder = Recorder(on_epoch)
    checkpoints = Checkpoints(
        directory / "checkpoints",
        monitor=metric,
        mode="max" if mode == "max" else "min",
        every_n_steps=plan.checkpoint.every_n_steps,
        every_seconds=plan.checkpoint.every_seconds,
        at_start=bool(settings.get("auto_batch_size")),
    )
    settings["profiler"] = lightning_profiler(settings.get("profiler"), directory)
    for split, loader in (("train", data.train), ("val", data.validation), ("test", data.test)):
        _at_least_one_batch(settings, split, loader, data)
    share = settings.get("overfit_batches")
    if isinstance(share, float) and share not in (0.0, 1.0):
        # Of the training split: Lightning would take the share of each split, and refuse less than a batch. And where
        # it is a number of batches, Lightning would take 2.0 for twice the split.
        batches = share * data.train.batches(data.batch_size) if share < 1 else share
        settings["overfit_batches"] = max(1, int(batches))
    _check_size(data, model)
    callbacks: list[Callback] = [*_callbacks(plan, data), recorder, checkpoints]
    trainer = build_trainer(
        settings, model, directory, callbacks=callbacks, logger=_loggers(plan.loggers, directory)
    )
    batches = _batches_per_epoch(trainer, data)
    _check_validation_interval(trainer, settings, batches)
    # At the end of an epoch there is a step in any case: its gradient is the mean of what was added up.
    how = optimisation(plan)
    asked = any(map(needs_every_output, (metric, plan.metric, how.monitor)))
    in_full = asked and not model.spec.per_step
    curve = _curve(settings.get("record_every_n_steps"), trainer, on_step)
    how = replace(how, accumulate=min(how.accumulate, batches), soften=softening(data, model.objective))
    module = TrainingModule(model, how, compiled, in_full, curve)
    chunk = steps_per_call(settings, model, plan.checkpoint.every_n_steps)
    return Fit(plan, data, module, trainer, recorder, checkpoints, chunk, on_rewind)


def run_fit(fit: Fit, resume_from: Path | None = None) -> None:
    """Train until the end, from the beginning or from a checkpoint.

    Raises:
        Diverged: The loss became NaN or infinite (with ``on_divergence=lower_lr``: once too often).
        torch.OutOfMemoryError: The batch is too large (with ``auto_batch_size``: a single sample is).
        Interrupted: Ctrl-C or SIGTERM came; the state was saved.
    """
    signals = Signals(fit.checkpoints)
    trainer, data, settings = fit.trainer, fit.data, fit.plan.trainer
    threads = Threads(settings, fit.model, data.batch_size, fit.plan.threads)
    cast(Any, trainer).callbacks[:0] = [signals, threads]
    fit.started = time.time()
    began = time.perf_counter()
    slower = LowerRate(fit.checkpoints, fit.module, settings["on_divergence"] == "lower_lr")
    parts = BatchParts(data, fit.module, bool(settings.get("auto_batch_size")))
    try:
        with (
            signals,
            threads,
            profiled(settings.get("profiler") == "advanced", Path(trainer.default_root_dir)),
        ):
            while True:
                try:
                    trainer.fit(
                        fit.module,
                        train_dataloaders=data.training_loader(
                            fit.plan.seed, fit.chunk, trainer.global_rank, trainer.world_size
                        ),
                        # Where nothing is held out, an empty list would be validated for 0.03 ms an epoch.
                        val_dataloaders=parts.validation_loader(),
                        ckpt_path=None if resume_from is None else str(resume_from),
                        weights_only=True,
                    )
                    # A signal in the last validation: the fit is whole, but what follows it was not wanted.
                    signals.agree(trainer, fit.module)
                    signals.check()
                    return
                except Diverged as error:
                    slower.after(error)
                except MisconfigurationException as error:
                    raise UserError(f"Lightning refuses these settings: {error}") from error
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    parts.halve(error)
                resume_from = fit.checkpoints.last
                fit.module.train()
                if fit.on_rewind:
                    fit.on_rewind(resume_from)
    finally:
        fit.seconds = time.perf_counter() - began
        fit.threads = threads.changes


class LowerRate:
    """After a divergence: back to the last good checkpoint with half the learning rate, three times at most.

    Args:
        checkpoints: Checkpoints, of which the last good one is gone back to.
        module: The training that goes on with the lower rate.
        wanted: Whether ``trainer.on_divergence=lower_lr`` is set.
    """

    def __init__(self, checkpoints: Checkpoints, module: TrainingModule, wanted: bool) -> None:
        self.checkpoints, self.module, self.wanted = checkpoints, module, wanted
        self.times = 0
        self._factor, self._from = 1.0, 0

    def after(self, error: Diverged) -> None:
        """Prepare the model for another try, or raise ``error``."""
        if not self.wanted:
            raise error
        if self.times == MAX_LOWERED:
            raise Diverged(f"{error} (the learning rate was halved {MAX_LOWERED} times already)") from None
        if not self.checkpoints.last.exists():
            raise Diverged(f"{error} (there is no good checkpoint yet to go back to)") from None
        self.times += 1
        written = self.checkpoints.last.stat().st_mtime_ns
        # A checkpoint written since holds the rate as it was lowered; the same one as before still has the old rate.
        self._factor = 0.5 if written != self._from else self._factor / 2
        self._from = written
        self.module.go_slower(self._factor)
        log.warning("%s\nBack to the last good checkpoint with half the learning rate.", error)


def start_from(model: BaseModule, path: str | Path) -> None:
    """Give ``model`` the weights of a checkpoint.

    Raises:
        UserError: There is no checkpoint, or its weights have other shapes.
    """
    weights = load_checkpoint(Path(path))["state_dict"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the weights of {path} do not fit this model: {str(error).splitlines()[-1].strip()}"
        ) from None


def _check_size(data: DataModule, model: BaseModule) -> None:
    """Refuse training images of another size than the others where the network takes those alone."""
    if data.augment != "crop_small" or data.spec.input != "image":
        return
    channels, *sides = data.spec.input_shape
    height, width = small(*sides)
    x = torch.zeros(2, channels, height, width, dtype=torch.uint8, device=model.device)
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(x)
    except Exception as error:
        reason = reason_of(error)
        raise UserError(
            f"data.augment=crop_small: this network does not take {height} × {width} pixels beside "
            f"{sides[0]} × {sides[1]} ({reason}); set data.augment=crop"
        ) from error
    finally:
        model.train(was_training)


def _at_least_one_batch(settings: dict[str, Any], split: str, rows: Rows | None, data: DataModule) -> None:
    """Make a small share of a small split one batch, where Lightning would refuse it."""
    share = settings.get(f"limit_{split}_batches")
    if rows is not None and isinstance(share, float) and 0 < share < 1:
        batches = rows.batches(data.batch_size if split == "train" else data.eval_batch_size)
        if share * batches < 1:
            settings[f"limit_{split}_batches"] = 1


def _batches_per_epoch(trainer: pl.Trainer, data: DataModule) -> int:
    """Number of training batches that each process sees in an epoch."""
    batches, limit = data.train.batches(data.batch_size * trainer.world_size), trainer.limit_train_batches
    return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))


def _check_validation_interval(trainer: pl.Trainer, settings: Node, batches: int) -> None:
    """Refuse to validate every so many batches where an epoch has fewer: Lightning would, when it is under way."""
    every, within = trainer.val_check_interval, trainer.check_val_every_n_epoch is not None
    if isinstance(every, int) and every > batches and within and trainer.limit_val_batches:
        raise UserError(
            f"trainer.val_check_interval={settings['val_check_interval']}: an epoch has {batches} training batches: "
            "expected at most so many; trainer.check_val_every_n_epoch=null counts on through all epochs"
        )


def _early_stopping(plan: FitPlan, data: DataModule, node: Node) -> EarlyStopping:
    """A callback that stops when the metric of the best epoch has not improved for ``patience`` epochs."""
    metric, mode = monitored(plan, data)
    reason = ""
    if data.validation is None and metric is None:
        reason = "nothing is held out to watch; set data.validation_fraction above 0"
    elif metric is None:
        reason = "checkpoint.monitor=null names nothing to watch; set it to a metric like val/loss"
    elif metric.startswith("val/") and plan.trainer.get("limit_val_batches") == 0:
        reason = f"trainer.limit_val_batches=0 leaves no {metric} to watch; set it above 0"
    if reason:
        raise UserError(f"callbacks.early_stopping.patience is set but {reason}")
    # Not strict: an epoch that the end of the training cuts short has no validation.
    arguments = {"monitor": metric, "mode": mode, "verbose": False, "strict": False, **node}
    return EarlyStopping(**arguments)


def _callbacks(plan: FitPlan, data: DataModule) -> list[Callback]:
    callbacks: list[Callback] = []
    for name, node in plan.callbacks.items():
        if name == "early_stopping":
            if node and node.get("patience") is not None:
                callbacks.append(_early_stopping(plan, data, node))
        elif name == "progress":
            if node and plan.trainer.get("enable_progress_bar", True):
                callbacks.append(
                    Progress(float(node.get("refresh_seconds", 0.25)), layers=bool(node.get("layers")))
                )
        elif node and "_target_" in node:
            callback = build(node, key=f"callbacks.{name}")
            if not isinstance(callback, Callback):
                raise UserError(f"callbacks.{name}._target_={node['_target_']} is not a Lightning callback")
            callbacks.append(callback)
    if plan.loggers.get("tensorboard"):
        callbacks.append(NetworkInTensorBoard())
    return callbacks


def _curve(
    every: int | str | None, trainer: pl.Trainer, on_step: Callable[[int, dict[str, float]], None] | None
) -> StepCurve | None:
    """Points of the curves within epochs, which Lightning's own loggers get too."""
    if every is None:
        return None

    def on_point(step: int, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        if on_step is not None:
            on_step(step, values)

    return StepCurve(every, on_point)


def _loggers(settings: Node, directory: Path) -> Any:
    loggers: list[Any] = []
    if settings.get("csv"):
        from pytorch_lightning.loggers import CSVLogger

        loggers.append(CSVLogger(str(directory), name="csv", version=""))
    if settings.get("tensorboard"):
        from pytorch_lightning.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(str(directory), name="tensorboard", version=""))
    return loggers or False
