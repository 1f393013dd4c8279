"""Checkpoints: written whole or not at all, loaded without pickle."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pipeline.config.nearest import suggest
from pipeline.data.core.loader import Loader
from pipeline.errors import UserError
from pipeline.files import written
from pipeline.training.agreeing import largest, of_the_first, raise_together
from pipeline.training.module import TrainingModule
from pipeline.training.parts import local, whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes under another name, syncs and renames: a kill while writing leaves the previous checkpoint whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        if "hyper_parameters" in checkpoint:
            # A person's LightningModule may keep networks and functions there, which only pickle could write. It is
            # built again from the run's configuration.
            kept = {name: value for name, value in checkpoint["hyper_parameters"].items() if _is_plain(value)}
            checkpoint = {**checkpoint, "hyper_parameters": kept}
        try:
            self._write(checkpoint, target)
        except (OSError, RuntimeError) as error:
            # What the disk said is hidden behind what torch.save makes of it.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            reason = (
                f"cannot write the checkpoint: {cause.strerror} (the one before it is kept; make room and go on "
                "with resume=auto)"
            )
            raise OSError(cause.errno, reason, str(target)) from error

    def _write(self, checkpoint: dict[str, Any], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written(target, durable=True) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> Any:
        return load_checkpoint(Path(path), map_location or "cpu")


def _is_plain(value: Any) -> bool:
    """Whether a value loads without pickle."""
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint that this project wrote, with ``weights_only=True``: nothing in it can run.

    Raises:
        UserError: There is no checkpoint at ``path``, it is damaged, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; pass the path of a .ckpt file")
    try:
        # torch.load reads the archive without looking at its checksums.
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is not a checkpoint that can be loaded safely: it is damaged or holds more than tensors and "
            f"plain values ({reason})"
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a Lightning checkpoint (it has no state_dict)")
    return checkpoint


class Checkpoints(Checkpoint):
    """Keeps ``last.ckpt`` (everything needed to go on) and ``best.ckpt`` (the weights of the best epoch).

    The best weights are kept in memory and written together with the last state, so that short epochs do not wait for
    the disk.

    Args:
        directory: Directory of the files.
        monitor: Metric that decides which epoch is best, None for the last one.
        mode: ``max`` or ``min``.
        every_n_steps: Number of optimiser steps between two saves within an epoch; None saves at its end alone.
        every_seconds: Least time between two writes at the ends of epochs, in seconds.
        at_start: Whether the state before the first step is written too, for a fit that may have to begin again.
    """

    def __init__(
        self,
        directory: Path,
        monitor: str | None,
        mode: Literal["max", "min"],
        every_n_steps: int | None = None,
        every_seconds: float = 1.0,
        at_start: bool = False,
    ) -> None:
        super().__init__()
        self.at_start = at_start
        self.directory, self.monitor, self.mode = directory, monitor, mode
        self.every_n_steps, self.every_seconds = every_n_steps, every_seconds
        self.hurry = False
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.best_weights: dict[str, torch.Tensor] | None = None
        self._best_step = 0
        self._best_written = True
        self._best_is_current = False
        self._written_at = -math.inf
        self._step_written = 0
        self._ended_early = False

    @property
    def last(self) -> Path:
        """Where the last state is."""
        return self.directory / "last.ckpt"

    @property
    def best(self) -> Path:
        """Where the best epoch's weights are."""
        return self.directory / "best.ckpt"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A fit that had ended early and was cut off after its last epoch has ended.
        trainer.should_stop = trainer.should_stop or self._ended_early
        if self.at_start and of_the_first(trainer, not self.last.exists()):
            self.save_last(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.every_n_steps or batch_idx + 1 >= trainer.num_training_batches:
            return
        if trainer.global_step // self.every_n_steps > self._step_written // self.every_n_steps:
            self.save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        due = self.hurry or time.monotonic() - self._written_at >= self.every_seconds
        due = due or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = due or trainer.global_step == trainer.max_steps
        if self._note_best(trainer):
            # Where the last epoch counts as the best and nothing is saved in the middle of one, the weights are
            # still there when they are written. Their copy takes 0.02 ms, as long as a step of SGD.
            self._best_is_current = self.monitor is None and trainer.num_training_batches == 1
            if not self._best_is_current:
                self._keep_weights(pl_module)
        # Each process has a clock, and signals, of its own; saving waits for all of them.
        if largest(trainer, due)[0]:
            self.save_last(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if of_the_first(trainer, not self._best_written or not self.last.exists()):
            self.save_last(trainer)

    def save_within_epoch(self, trainer: pl.Trainer) -> None:
        """Write the last state between two steps of an epoch, where the data can go on from there: ours can."""
        if isinstance(trainer.train_dataloader, Loader):
            self.save_last(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write the last state now, and the best weights before it if they are not on disk yet.

        Raises:
            Diverged: The weights are not numbers any more; the checkpoint that is there stays.
        """
        _check_finite(trainer)
        self._ended_early = trainer.should_stop
        if self._best_is_current:
            self._keep_weights(trainer.lightning_module)
        if not self._best_written and trainer.is_global_zero:
            self._write_best(trainer)
        self._best_written = True
        trainer.save_checkpoint(self.last)
        self._step_written, self._written_at = trainer.global_step, time.monotonic()

    def restore_best(self, module: pl.LightningModule) -> None:
        """Give ``module`` the weights of the best epoch."""
        if self.best_weights is not None:
            module.load_state_dict(self.best_weights)
        elif self.best.exists():
            module.load_state_dict(load_checkpoint(self.best)["state_dict"])

    def _note_best(self, trainer: pl.Trainer) -> bool:
        """Note the epoch that ends if it is the best one so far; gives whether it is."""
        score = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        value = of_the_first(trainer, None if score is None else float(score))
        if self.monitor and value is None:
            _refuse_unmeasured(self.monitor, trainer.callback_metrics)
            return False
        if value is not None and self.best_score is not None and not self._is_better(value, self.best_score):
            return False
        self.best_score, self.best_epoch = value, trainer.current_epoch
        self._best_step, self._best_written = trainer.global_step, False
        return True

    def _keep_weights(self, module: pl.LightningModule) -> None:
        self._best_is_current = False
        self.best_weights = {
            name: whole(tensor.detach()).cpu().clone() for name, tensor in module.state_dict().items()
        }

    def _is_better(self, value: float, than: float) -> bool:
        return value > than if self.mode == "max" else value < than

    def _write_best(self, trainer: pl.Trainer) -> None:
        module = trainer.lightning_module
        trainer.strategy.checkpoint_io.save_checkpoint(
            {
                "state_dict": self.best_weights,
                "hyper_parameters": dict(module.hparams),
                "pytorch-lightning_version": version("pytorch-lightning"),
                "epoch": self.best_epoch,
                "global_step": self._best_step,
                "class": class_name(module),
                "monitor": {"metric": self.monitor, "value": self.best_score},
            },
            self.best,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "step_written": self._step_written,
            "ended_early": self._ended_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self._step_written = state_dict["step_written"]
        self._ended_early = state_dict.get("ended_early", False)


def class_name(module: pl.LightningModule) -> str:
    """The dotted name of what was trained: the model's, not that of the training around it."""
    trained = module.model if isinstance(module, TrainingModule) else module
    return f"{type(trained).__module__}.{type(trained).__qualname__}"


def _refuse_unmeasured(monitor: str, measured: Iterable[str]) -> None:
    """Refuse a metric that others of its split came without; where none came, the split was not looked at."""
    split = monitor.split("/")[0]
    names = [name for name in measured if name.split("/")[0] == split]
    if names:
        raise UserError(
            f"{monitor}: the run measures no such metric, and it is to decide which epoch is best "
            f"(objective.metric, checkpoint.monitor). {suggest(monitor, names)}"
        )


def _check_finite(trainer: pl.Trainer) -> None:
    """Raise if the weights are not numbers: a step can spoil them though its loss was finite."""
    module = trainer.lightning_module
    if not isinstance(module, TrainingModule):
        return
    module.check_losses()
    # Of a model in parts each process looks at its own; what one of them finds is told to all.
    finite = [local(tensor).isfinite().all() for tensor in module.parameters()]
    good = not finite or bool(torch.stack(finite).all())
    raise_together(trainer, None if good else module.diverged("the weights became NaN or infinite"))
