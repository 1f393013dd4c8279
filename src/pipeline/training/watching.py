"""Callbacks that show what a model does while it learns: what it writes, says and weighs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from pipeline.data.core.splits import Chunk
from pipeline.data.text.encoders import CharacterEncoder
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.training.module import TrainingModule

WRITTEN = "written.txt"
"""The file in the run directory that collects what models wrote."""


class Samples(pl.Callback):
    """Prints and keeps a text that the model writes, every so often.

    Args:
        every_n_steps: Number of optimiser steps between two texts; one is written before the first step, and a last one
            at the end.
        length: Number of characters in each text.
        prompt: Text that the model reads first; an empty one begins with a character drawn at random.
        temperature: Temperature, see :func:`pipeline.models.generation.generate`.
        top_k: Number of likeliest characters to choose among, likewise.
        seed: Seed of the choice, likewise.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        length: int = 200,
        prompt: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.every_n_steps, self.length, self.prompt = every_n_steps, length, prompt
        self.temperature, self.top_k, self.seed = temperature, top_k, seed
        self._next = every_n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._next = (trainer.global_step // self.every_n_steps + 1) * self.every_n_steps
        if trainer.global_step == 0:
            self._write(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self._next:
            self._next += self.every_n_steps
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every_n_steps:
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from pipeline.models.generation import generate

        if trainer.is_global_zero:
            text = generate(
                trained(pl_module, self).model,
                self.length,
                self.prompt,
                self.temperature,
                self.top_k,
                self.seed,
            )
            show(trainer, f"step {trainer.global_step}", self.prompt + text)


class Predictions(pl.Callback):
    """Shows what the model says to given inputs: numbers as metrics, letters as text.

    Args:
        inputs: Raw samples: rows of features, or texts whose every letter is to be followed by the next.
        every_n_epochs: Number of epochs from one look to the next.
    """

    def __init__(self, inputs: Sequence[Any], every_n_epochs: int = 10) -> None:
        super().__init__()
        self.inputs, self.every_n_epochs = list(inputs), every_n_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model = trained(pl_module, self).model
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if model.spec.per_step:
            if due and trainer.is_global_zero:
                said = [f"{text} → {predicted_text(model, text)}" for text in self.inputs]
                show(trainer, f"epoch {trainer.current_epoch + 1}", "\n".join(said))
            return
        names = [f"prediction/{'_'.join(f'{value:g}' for value in _row(sample))}" for sample in self.inputs]
        if due:
            x = torch.tensor([_row(sample) for sample in self.inputs], device=model.device)
            with torch.no_grad():
                values = model(x)
            log_now(trainer, dict(zip(names, values[:, 0].tolist(), strict=True)))
        else:
            forget(trainer, names)


class Weights(pl.Callback):
    """Records every single weight of a tiny model as a metric.

    Args:
        every_n_epochs: Number of epochs from one record to the next.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        super().__init__()
        self.every_n_epochs = every_n_epochs
        self._names: list[str] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            values = {
                "/".join(["weights", name, *map(str, index)]): float(parameter.detach()[index])
                for name, parameter in trained(pl_module, self).model.named_parameters()
                for index in np.ndindex(*parameter.shape)
            }
            self._names = list(values)
            log_now(trainer, values)
        else:
            forget(trainer, self._names)
            self._names = []


class SmoothedLoss(pl.Callback):
    """The training loss of single steps as an exponential mean, as character demonstrations report it.

    Args:
        factor: Weight of the past at each step; the mean begins with the first loss.
    """

    def __init__(self, factor: float = 0.999) -> None:
        super().__init__()
        self.factor = factor
        self.value: float | None = None
        self._seen = (0.0, 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen = (0.0, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        sums = trained(pl_module, self).loop.sums
        loss, count = float(sums.loss), sums.count
        if count == self._seen[1]:
            return
        mean = (loss - self._seen[0]) / (count - self._seen[1])
        self._seen = (loss, count)
        # A chunk of several steps counts with its mean for each of them.
        kept = self.factor ** (len(batch) if isinstance(batch, Chunk) else 1)
        self.value = mean if self.value is None else kept * self.value + (1 - kept) * mean

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.value is not None:
            log_now(trainer, {"train/smooth_loss": self.value})

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "seen": list(self._seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]
        self._seen = (state_dict["seen"][0], state_dict["seen"][1])


def trained(module: pl.LightningModule, asks: pl.Callback) -> TrainingModule:
    """The training that a callback looks into.

    Raises:
        UserError: The model is a LightningModule that trains itself.
    """
    if not isinstance(module, TrainingModule):
        raise UserError(
            f"callbacks: {type(asks).__name__} looks into models that this project trains, but "
            f"{type(module).__name__} is a LightningModule of its own; leave the callback out, or give the network "
            "alone as model._target_"
        )
    return module


def predicted_text(model: BaseModule, text: str) -> str:
    """What the model expects after each letter of ``text``."""
    encoder = CharacterEncoder(list(model.spec.classes[1:]))
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(encoder.ids(text)[None].to(model.device))
    model.train(was_training)
    return encoder.decode(logits[0].argmax(-1).cpu())


def show(trainer: pl.Trainer, when: str, text: str) -> None:
    """Print a text and add it to the file of texts in the run directory."""
    block = f"--- {when} ---\n{text}\n"
    print(block, file=sys.stderr, flush=True)
    path = Path(trainer.default_root_dir) / WRITTEN
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(block)


def log_now(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Add metrics to those that this epoch is recorded with."""
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})


def forget(trainer: pl.Trainer, names: Sequence[str]) -> None:
    """Leave metrics of an earlier epoch out of this one's record."""
    for name in names:
        trainer.callback_metrics.pop(name, None)


def _row(sample: Any) -> list[float]:
    return [float(value) for value in sample] if isinstance(sample, Sequence) else [float(sample)]
