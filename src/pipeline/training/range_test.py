"""A schedule that raises the learning rate at every step, and a watch over the loss that ends the fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from pipeline.errors import Diverged
from pipeline.training.module import TrainingModule
from pipeline.training.step import Optimisation


def rising(plan: Optimisation, rates: Sequence[float]) -> Optimisation:
    """The same optimisation with one learning rate after the other, a step each."""

    def schedule(optimizer: torch.optim.Optimizer, _: int) -> Any:
        base = optimizer.param_groups[0]["lr"]
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rates[min(step, len(rates) - 1)] / base
        )

    return replace(plan, scheduler=schedule, interval="step", monitor=None, seconds=None)


class RangeWatch(pl.Callback):
    """Notes the loss of every optimiser step, and ends the fit (:class:`Diverged`) once it rises far above its best.

    Args:
        stop_at: The fit ends once the smoothed loss is so many times the best one.
        smoothing: Weight of the past in the smoothed loss.
        from_step: The first steps, so many, never end the fit.
    """

    def __init__(self, stop_at: float, smoothing: float, from_step: int) -> None:
        super().__init__()
        self.stop_at, self.smoothing, self.from_step = stop_at, smoothing, from_step
        self.losses: list[float] = []
        self._smooth, self._best = 0.0, math.inf
        self._waiting: list[float] = []
        self._seen = (0.0, 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen = (0.0, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        loop = pl_module.loop
        loss, count = float(loop.sums.loss), loop.sums.count
        if count > self._seen[1]:
            self._waiting.append((loss - self._seen[0]) / (count - self._seen[1]))
            self._seen = (loss, count)
        if loop.waiting:
            return
        value = sum(self._waiting) / max(1, len(self._waiting))
        self._waiting = []
        self.losses.append(value)
        step = len(self.losses)
        self._smooth = self.smoothing * self._smooth + (1 - self.smoothing) * value
        # Without its bias towards the zero it began with.
        corrected = self._smooth / (1 - self.smoothing**step)
        self._best = min(self._best, corrected)
        if step > self.from_step and corrected > self.stop_at * self._best:
            raise Diverged("the loss rises: the range test has seen enough")
