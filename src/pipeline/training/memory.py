"""When memory runs out: say which batch was too large, or take it in smaller parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from pytorch_lightning.utilities.memory import is_oom_error

from pipeline.data.core.loader import Loader
from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import Rows
from pipeline.training.module import TrainingModule

log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an accelerator's memory, or this machine's, was too small."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_oom_error(error)


Result = TypeVar("Result")


class BatchParts:
    """Halves what goes through the model at once; the batch that a step learns from stays what it was.

    A batch in parts gives the gradient of the whole one, up to rounding, for everything that is a mean over samples;
    statistics of a batch (batch normalisation) are those of the parts.

    Args:
        data: The data whose batches they are.
        module: The training, or the test, that they go through.
        automatic: Whether to halve (``trainer.auto_batch_size``), or only to say what was too large.
    """

    def __init__(self, data: DataModule, module: TrainingModule, automatic: bool) -> None:
        self.data, self.module, self.automatic = data, module, automatic
        self.eval_batch_size = data.eval_batch_size

    def validation_loader(self) -> Loader | None:
        """The validation split in batches that fit; None where nothing is held out."""
        held_out = self.data.validation
        return None if held_out is None or len(held_out) == 0 else self.loader_of(held_out)

    def loader_of(self, split: Rows) -> Loader:
        """A split in order, in batches that fit."""
        return self.data.loader_of(split, self.eval_batch_size)

    def halve(self, error: BaseException) -> None:
        """After ``error``, go on with parts of half the size.

        Raises:
            torch.OutOfMemoryError: Smaller parts are not wanted, or one sample is too much already.
        """
        evaluating = not self.module.training
        key, size = (
            ("data.eval_batch_size", self._evaluated())
            if evaluating
            else ("data.batch_size", self._trained())
        )
        if not self.automatic or size == 1:
            raise torch.OutOfMemoryError(self._advice(key, size, error)) from None
        half = -(-size // 2)
        if evaluating:
            self.eval_batch_size = half
        else:
            self.module.take_smaller_parts()
        self._let_go(error)
        what = "" if evaluating else f", accumulated to batches of {self.data.batch_size}"
        log.warning("Out of memory with %d samples at once (%s): going on with %d%s.", size, key, half, what)

    def within(self, attempt: Callable[[], Result]) -> Result:
        """What ``attempt`` gives, tried with smaller and smaller parts while memory runs out.

        Raises:
            torch.OutOfMemoryError: As :meth:`halve` raises it.
        """
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.halve(error)

    def _trained(self) -> int:
        return -(-self.data.batch_size // self.module.loop.pieces)

    def _evaluated(self) -> int:
        return self.eval_batch_size

    def _advice(self, key: str, size: int, error: BaseException) -> str:
        lines = str(error).strip().splitlines()
        reason = f" ({lines[0][:200]})" if lines else ""
        if size == 1:
            return (
                f"out of memory with a single sample at once: take a smaller model or shorter inputs{reason}"
            )
        advice = f"lower it ({key}={max(1, size // 2)})"
        if not self.automatic:
            advice += ", or set trainer.auto_batch_size=true to take it in parts"
        return f"out of memory with {key}={size}: {advice}, or take a smaller model{reason}"

    def _let_go(self, error: BaseException) -> None:
        """Release the tensors of the step that failed, which the traceback's frames hold."""
        error.__traceback__ = None
        self.module.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
