"""What TensorBoard shows of a network beside its curves: its graph, and how its weights are spread, epoch by epoch."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from pipeline.errors import reason_of
from pipeline.training.module import TrainingModule

log = logging.getLogger(__name__)


class NetworkInTensorBoard(pl.Callback):
    """Writes the graph once and a histogram of every parameter at the start and after each epoch.

    Nothing random is drawn and nothing in the network changes: the fit is the same with it and without.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (writer := _writer(trainer)) is None or not isinstance(pl_module, TrainingModule):
            return
        if trainer.current_epoch == 0:
            self._histograms(writer, pl_module, 0)
        x = first_samples(trainer)
        model = pl_module.model
        if x is None or trainer.world_size > 1:
            return
        training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # Of the tracer's doubts about shapes: the graph is looked at, not run.
                warnings.simplefilter("ignore")
                writer.add_graph(model, x.to(model.device), use_strict_trace=False)
        except Exception as error:
            reason = reason_of(error)
            log.warning("TensorBoard's graph of %s could not be drawn: %s", type(model).__name__, reason)
        finally:
            for module, was in training.items():
                module.training = was

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (writer := _writer(trainer)) is not None and isinstance(pl_module, TrainingModule):
            self._histograms(writer, pl_module, trainer.current_epoch + 1)

    def _histograms(self, writer: Any, module: TrainingModule, epoch: int) -> None:
        for name, parameter in module.model.named_parameters():
            values = parameter.detach().float().cpu()
            if bool(values.isfinite().all()):
                writer.add_histogram(name, values, epoch)


def first_samples(trainer: pl.Trainer, most: int = 2) -> Any | None:
    """The inputs of the first samples of the training split; None where another's loader reads it."""
    split = getattr(trainer.train_dataloader, "split", None)
    if split is None:
        return None
    return split.take(torch.arange(min(most, len(split)) if not hasattr(split, "steps") else 1))[0]


def _writer(trainer: pl.Trainer) -> Any | None:
    if not trainer.is_global_zero:
        return None
    return next((some.experiment for some in trainer.loggers if isinstance(some, TensorBoardLogger)), None)
