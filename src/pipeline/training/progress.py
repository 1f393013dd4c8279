"""What a person sees while it trains: a bar on a terminal, one line an epoch anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from pipeline.metrics import four_digits, four_places, headline
from pipeline.reports.layers import table_of
from pipeline.training.module import TrainingModule
from pipeline.training.network_in_tensorboard import first_samples


class Progress(Checkpoint):
    """Progress of the fit.

    The bar is drawn a few times a second at most: drawing costs more than a small model's step. It is a ``Checkpoint``
    callback because those run last, when the epoch's metrics are there.

    Args:
        refresh_seconds: Least time between two drawings, in seconds.
        interactive: Whether to draw a bar; None draws one where the standard error is a terminal.
        layers: Whether the network's layers are shown before its first epoch.
    """

    _layers_shown: ClassVar[str] = ""
    """The last table of this process: the folds and seeds of an experiment have the same network."""

    def __init__(
        self, refresh_seconds: float = 0.25, interactive: bool | None = None, layers: bool = False
    ) -> None:
        super().__init__()
        self.layers = layers
        self.refresh_seconds = refresh_seconds
        self.interactive = sys.stderr.isatty() if interactive is None else interactive
        self._drawn_at = 0.0
        self._printed_at = 0.0
        self._width = 0
        self._tenth = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Where several processes hold parts of a network, one of them alone cannot run it.
        if not self.layers or trainer.world_size > 1 or not isinstance(pl_module, TrainingModule):
            return
        x = first_samples(trainer)
        if x is None:
            return
        with torch.autocast(pl_module.device.type, enabled=False):
            table = table_of(pl_module.model, x.to(pl_module.device))
        if table != Progress._layers_shown:
            Progress._layers_shown = table
            print(table, file=sys.stderr, flush=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_started = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if isinstance(pl_module, TrainingModule) and now - self._printed_at >= self.refresh_seconds:
            self._print_tenth(trainer, pl_module)
        if not self.interactive or now - self._drawn_at < self.refresh_seconds or not trainer.is_global_zero:
            return
        self._drawn_at = now
        total = max(1, int(trainer.num_training_batches))
        done = batch_idx + 1
        filled = 24 * done // total
        left = (now - getattr(self, "_epoch_started", now)) * (total - done) / done
        bar = "━" * filled + " " * (24 - filled)
        loss = pl_module.loop.sums.last_loss if isinstance(pl_module, TrainingModule) else None
        self._draw(
            f"epoch {trainer.current_epoch + 1}/{_total(trainer)} {bar} {100 * done // total:3d} % "
            f"{'' if loss is None else f'loss {loss:.4f} '}{left:.0f} s left"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        now = time.monotonic()
        # Epochs of a few milliseconds would fill the screen.
        if not trainer.is_global_zero or (now - self._printed_at < self.refresh_seconds and not last):
            return
        self._printed_at = now
        metrics = trainer.callback_metrics
        shown = [
            f"{name} {four_places(float(metrics[name]))}"
            for split in sorted({name.rpartition("/")[0] for name in metrics})
            for name in headline(name for name in metrics if name.rpartition("/")[0] == split)
        ]
        self._draw("")
        print(
            f"epoch {trainer.current_epoch + 1}/{_total(trainer)}  {'  '.join(shown)}",
            file=sys.stderr,
            flush=True,
        )

    def _print_tenth(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """A line for every tenth of the fit, where epochs are too few to show how it goes."""
        curve = module.curve
        if curve is None or curve.last is None or not curve.points or not trainer.is_global_zero:
            return
        tenth = 10 * trainer.global_step // curve.last
        if tenth <= self._tenth or curve.epochs > 5 or tenth >= 10:
            return
        self._tenth, self._printed_at = tenth, time.monotonic()
        shown = [f"{name} {four_digits(points[-1][1])}" for name, points in curve.points.items()]
        self._draw("")
        print(f"step {trainer.global_step:,}/{curve.last:,}  {'  '.join(shown)}", file=sys.stderr, flush=True)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._draw("")

    def _draw(self, text: str) -> None:
        if self.interactive:
            sys.stderr.write("\r" + text.ljust(self._width) + ("\r" if not text else ""))
            sys.stderr.flush()
            self._width = len(text)


def _total(trainer: pl.Trainer) -> str:
    return "?" if trainer.max_epochs in (None, -1) else str(trainer.max_epochs)
