"""The history of a fit: every epoch's metrics, kept, tracked and reported onwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from pipeline.data.core.loader import Loader
from pipeline.training.module import TrainingModule

History = dict[str, list[tuple[int, float]]]


class Recorder(Checkpoint):
    """Collects an epoch's metrics, the learning rate and the throughput.

    It is a ``Checkpoint`` callback because those run last, when the epoch's metrics are there.

    Args:
        on_epoch: Function called after every epoch with its number (from 1) and its metrics.
    """

    def __init__(self, on_epoch: Callable[[int, dict[str, float]], None] | None = None) -> None:
        super().__init__()
        self.history: History = {}
        self.samples = 0
        self.seconds = 0.0
        self._on_epoch = on_epoch
        self._started = 0.0
        # Lightning's sanity check validates before any epoch.
        self._validation_seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        self._validation_seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        self._validation_seconds = 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_seconds += time.perf_counter() - self._validation_started

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = max(time.perf_counter() - self._started - self._validation_seconds, 1e-9)
        samples = samples_in_epoch(trainer)
        self.samples += samples
        self.seconds += seconds
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if isinstance(pl_module, TrainingModule):
            metrics |= pl_module.epoch_metrics
        # Of this epoch: the schedule has moved on by now.
        metrics["train/lr"] = (
            pl_module.epoch_rate if isinstance(pl_module, TrainingModule) else _first_rate(trainer)
        )
        metrics["train/samples_per_second"] = samples / seconds
        self.note(trainer.current_epoch + 1, metrics)

    def note(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record an epoch (from 1)."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append((epoch, value))
        if self._on_epoch is not None:
            self._on_epoch(epoch, metrics)

    def state_dict(self) -> dict[str, Any]:
        # As tensors: of a list, torch.save looks at every number, which took 20 µs an epoch in a fit of 12,000.
        history = {name: torch.tensor(points, dtype=torch.float64) for name, points in self.history.items()}
        return {"history": history, "samples": self.samples, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = {
            name: [
                (int(epoch), value) for epoch, value in torch.as_tensor(points, dtype=torch.float64).tolist()
            ]
            for name, points in state_dict["history"].items()
        }
        self.samples, self.seconds = state_dict["samples"], state_dict["seconds"]


def _first_rate(trainer: pl.Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"]) if trainer.optimizers else 0.0


def samples_in_epoch(trainer: pl.Trainer) -> int:
    """Training samples (steps of a sequence, for streams) that an epoch goes through, over all processes."""
    loader = trainer.train_dataloader
    if not isinstance(loader, Loader):
        return int(trainer.num_training_batches) * int(getattr(loader, "batch_size", 1) or 1)
    whole = loader.split.samples
    batches = int(trainer.num_training_batches)
    return whole if batches >= len(loader) else round(whole * batches / len(loader))
