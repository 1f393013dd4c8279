"""Ctrl-C and SIGTERM: the state is saved at the end of the step, then the run ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from types import FrameType, TracebackType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from pipeline.errors import Interrupted
from pipeline.process_life import EXIT_CODES, answer, restore
from pipeline.training.agreeing import largest, raise_together
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.module import TrainingModule

log = logging.getLogger(__name__)

# What SLURM sends before a job's time limit where it is asked to: #SBATCH --signal=USR1@120.
_NEAR_THE_LIMIT = (signal.SIGUSR1,) if "SLURM_JOB_ID" in os.environ else ()


def queue_again() -> None:
    """Have SLURM queue this job again, so that `resume=auto` in its command goes on; by the first of its processes."""
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        # The number of one of an array's tasks is the array's own, and would mean all of them.
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("SLURM does not queue the job %s again: %s", job, done.stderr.strip())


class Signals(Callback):
    """Turns a signal into :class:`Interrupted` once the state is on disk; a second Ctrl-C does not wait.

    Used as a context manager around the fit, and given to the trainer as a callback.

    Args:
        checkpoints: Callback that saves the state.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.exit_code: int | None = None
        self._several = False
        self.requeues = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        self._previous = answer(self._received, *EXIT_CODES, *_NEAR_THE_LIMIT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._previous)
        if self.requeues and isinstance(error, Interrupted):
            queue_again()

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requeues = self.requeues or number in _NEAR_THE_LIMIT
        self.exit_code = EXIT_CODES.get(signal.Signals(number), EXIT_CODES[signal.SIGTERM])
        self.checkpoints.hurry = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        code = self.agree(trainer, pl_module) if self._several else self.exit_code
        # After the last batch comes the validation, and then the epoch's own end, which saves the state.
        if code is not None and batch_idx + 1 < trainer.num_training_batches:
            self.checkpoints.save_within_epoch(trainer)
            raise Interrupted(code)

    def agree(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> int | None:
        """Have all processes of the training do the same where a signal, or a bad loss, has come to one of them.

        Returns:
            The exit code with which all of them are to end, None where no signal had come. One that comes to a process
            while it waits for the others is told at the next place: alone it would save, or end, without them.

        Raises:
            Diverged: One of them has seen a loss that is no number.
        """
        error = pl_module.bad_loss() if isinstance(pl_module, TrainingModule) else None
        code, bad = largest(trainer, self.exit_code or 0, error is not None)
        if bad:
            raise_together(trainer, error)
        if code:
            self.exit_code, self.checkpoints.hurry = code, True
        return code or None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._several = trainer.world_size > 1
        # Lightning puts a handler of its own around ours, which would end the process with exit code 0.
        answer(self._received, *self._previous)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        code = self.agree(trainer, pl_module) if self._several else self.exit_code
        if code is not None:
            raise Interrupted(code)

    def check(self) -> None:
        """Raise if a signal has come."""
        if self.exit_code is not None:
            raise Interrupted(self.exit_code)
