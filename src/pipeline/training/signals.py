"""Ctrl-C and SIGTERM: the state is saved at the end of the step, then the run ends."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from pipeline.errors import Interrupted
from pipeline.process_life import EXIT_CODES, answer, restore
from pipeline.training.checkpoints import Checkpoints


class Signals(Callback):
    """Turns a signal into :class:`Interrupted` once the state is on disk; a second Ctrl-C does not wait.

    Used as a context manager around the fit, and given to the trainer as a callback.

    Args:
        checkpoints: Callback that saves the state.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.exit_code: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._previous = answer(self._received, *EXIT_CODES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._previous)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = EXIT_CODES[signal.Signals(number)]
        self.checkpoints.hurry = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # After the last batch comes the validation, and then the epoch's own end, which saves the state.
        if self.exit_code is not None and batch_idx + 1 < trainer.num_training_batches:
            self.checkpoints.save_within_epoch(trainer)
            raise Interrupted(self.exit_code)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning puts a handler of its own around ours, which would end the process with exit code 0.
        answer(self._received, *self._previous)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check()

    def check(self) -> None:
        """Raise if a signal has come."""
        if self.exit_code is not None:
            raise Interrupted(self.exit_code)
