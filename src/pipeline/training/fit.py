"""One fit: the trainer with everything beside the training step, and what happens when the loss diverges."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback, EarlyStopping

from pipeline.config import build
from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Rows
from pipeline.errors import Diverged, UserError
from pipeline.models.base import BaseModule
from pipeline.training.building import monitored, plain
from pipeline.training.checkpoints import Checkpoints, load_checkpoint
from pipeline.training.memory import BatchParts, is_out_of_memory
from pipeline.training.profiling import lightning_profiler, profiled
from pipeline.training.progress import Progress
from pipeline.training.recorder import Recorder
from pipeline.training.signals import Signals
from pipeline.training.trainer import Threads, build_trainer, steps_per_call

log = logging.getLogger(__name__)

MAX_LOWERED = 3


@dataclass
class Fit:
    """A fit that is going on or has ended.

    Args:
        trainer: that ran it.
        recorder: its history.
        checkpoints: its best and last state.
        on_rewind: called with the checkpoint that the fit goes back to.
        seconds: that it took.
        started: time (seconds since 1970) at which training began.
    """

    trainer: pl.Trainer
    recorder: Recorder
    checkpoints: Checkpoints
    on_rewind: Callable[[Path], None] | None = None
    seconds: float = 0.0
    started: float = 0.0


def prepare_fit(
    cfg: DictConfig,
    data: DataModule,
    model: BaseModule,
    directory: Path,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_rewind: Callable[[Path], None] | None = None,
) -> Fit:
    """The trainer and its callbacks for one fit in ``directory``.

    Args:
        cfg: the whole configuration.
        data: to train on.
        model: to train.
        directory: of the run.
        on_epoch: called after every epoch with its number (from 1) and its metrics.
        on_rewind: called with the checkpoint that the fit goes back to.
    """
    settings = cast("dict[str, Any]", plain(cfg.trainer))
    metric, mode = monitored(cfg, data)
    every_n_steps = cfg.checkpoint.every_n_steps
    recorder = Recorder(on_epoch)
    checkpoints = Checkpoints(
        directory / "checkpoints",
        monitor=metric,
        mode="max" if mode == "max" else "min",
        every_n_steps=every_n_steps,
        every_seconds=float(cfg.checkpoint.every_seconds),
        at_start=bool(settings.get("auto_batch_size")),
    )
    settings["profiler"] = lightning_profiler(settings.get("profiler"), directory)
    for split, loader in (("train", data.train), ("val", data.validation), ("test", data.test)):
        _at_least_one_batch(settings, split, loader, data)
    share = settings.get("overfit_batches")
    if isinstance(share, float) and 0 < share < 1:
        # Of the training split: Lightning would take the share of each split, and refuse less than a batch.
        settings["overfit_batches"] = max(1, int(share * data.train.batches(data.batch_size)))
    callbacks: list[Callback] = [*_callbacks(cfg, data), recorder, checkpoints]
    trainer = build_trainer(settings, model, directory, callbacks=callbacks, logger=_loggers(cfg, directory))
    data.chunk = steps_per_call(settings, model, every_n_steps)
    data.trainer = trainer
    return Fit(trainer, recorder, checkpoints, on_rewind)


def run_fit(
    cfg: DictConfig, fit: Fit, data: DataModule, model: BaseModule, resume_from: Path | None = None
) -> None:
    """Train until the end, from the beginning or from a checkpoint.

    Raises:
        Diverged: the loss became NaN or infinite (with ``on_divergence=lower_lr``: once too often).
        torch.OutOfMemoryError: the batch is too large (with ``auto_batch_size``: a single sample is).
        Interrupted: by Ctrl-C or SIGTERM, after the state was saved.
    """
    signals = Signals(fit.checkpoints)
    trainer = fit.trainer
    threads = Threads(cfg.trainer, model, data.batch_size)
    cast(Any, trainer).callbacks[:0] = [signals, threads]
    fit.started = time.time()
    began = time.perf_counter()
    slower = LowerRate(fit.checkpoints, model, cfg.trainer.on_divergence == "lower_lr")
    parts = BatchParts(data, model, bool(cfg.trainer.get("auto_batch_size")))
    try:
        with signals, threads, profiled(cfg, Path(trainer.default_root_dir)):
            while True:
                try:
                    trainer.fit(
                        model,
                        train_dataloaders=data.train_dataloader(),
                        # Where nothing is held out, an empty list would be validated for 0.03 ms an epoch.
                        val_dataloaders=data.val_dataloader() or None,
                        ckpt_path=None if resume_from is None else str(resume_from),
                        weights_only=True,
                    )
                    # A signal in the last validation: the fit is whole, but what follows it was not wanted.
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
                model.train()
                if fit.on_rewind:
                    fit.on_rewind(resume_from)
    finally:
        fit.seconds = time.perf_counter() - began


class LowerRate:
    """After a divergence: back to the last good checkpoint with half the learning rate, three times at most.

    Args:
        checkpoints: where the last good one is.
        model: goes on with the lower rate.
        wanted: ``trainer.on_divergence=lower_lr``.
    """

    def __init__(self, checkpoints: Checkpoints, model: BaseModule, wanted: bool) -> None:
        self.checkpoints, self.model, self.wanted = checkpoints, model, wanted
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
        self.model.rate_factor = self._factor
        log.warning("%s\nBack to the last good checkpoint with half the learning rate.", error)


def start_from(model: BaseModule, path: str | Path) -> None:
    """Give ``model`` the weights of a checkpoint.

    Raises:
        UserError: there is none, or its weights have other shapes.
    """
    weights = load_checkpoint(Path(path))["state_dict"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"the weights of {path} do not fit this model: {str(error).splitlines()[-1].strip()}"
        ) from None


def _at_least_one_batch(settings: dict[str, Any], split: str, rows: Rows | None, data: DataModule) -> None:
    """A small share of a small split is one batch, where Lightning would refuse it."""
    share = settings.get(f"limit_{split}_batches")
    if rows is not None and isinstance(share, float) and 0 < share < 1:
        batches = rows.batches(data.batch_size if split == "train" else data.eval_batch_size)
        if share * batches < 1:
            settings[f"limit_{split}_batches"] = 1


def _callbacks(cfg: DictConfig, data: DataModule) -> list[Callback]:
    callbacks: list[Callback] = []
    settings = cast("dict[str, Any]", plain(cfg.callbacks) or {})
    for name, node in settings.items():
        if name == "early_stopping":
            if node and node.get("patience") is not None:
                metric, mode = monitored(cfg, data)
                if metric is None:
                    raise UserError(
                        "callbacks.early_stopping.patience is set but nothing is held out to watch; "
                        "set data.validation_fraction above 0"
                    )
                arguments = {"monitor": metric, "mode": mode, "verbose": False, **node}
                callbacks.append(EarlyStopping(**arguments))
        elif name == "progress":
            if node and cfg.trainer.get("enable_progress_bar", True):
                callbacks.append(Progress(float(node.get("refresh_seconds", 0.25))))
        elif node and "_target_" in node:
            callback = build(node, key=f"callbacks.{name}")
            if not isinstance(callback, Callback):
                raise UserError(f"callbacks.{name}._target_={node['_target_']} is not a Lightning callback")
            callbacks.append(callback)
    return callbacks


def _loggers(cfg: DictConfig, directory: Path) -> Any:
    loggers: list[Any] = []
    if cfg.logger.get("csv"):
        from pytorch_lightning.loggers import CSVLogger

        loggers.append(CSVLogger(str(directory), name="csv", version=""))
    if cfg.logger.get("tensorboard"):
        from pytorch_lightning.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(str(directory), name="tensorboard", version=""))
    return loggers or False
