"""The only door to Lightning's private side: each private thing that is used here, with the reason.

``tests/training/test_lightning_inside.py`` holds Lightning to all of it, and fails by name where a version changes
something.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.states import RunningStage


class QuickAttributes:
    """Lets Lightning note which hook runs without the way through ``nn.Module``.

    Lightning sets ``_current_fx_name`` before and after each of some forty hooks of a step; through
    ``nn.Module.__setattr__`` each takes 3 µs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


class QuickTrainer(pl.Trainer):
    """Lightning's Trainer, exact where it resumes with ``max_steps`` and quicker to say whether it is training."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        resume_at_epoch_ends(self)

    @property
    def training(self) -> bool:
        """Whether the fit is at a training step (not in its validation).

        Lightning asks some thirty times an epoch. Its own answer compares two strings in lower case, which takes
        0.02 ms an epoch: a tenth of a step of a tiny model.
        """
        return self.state.stage is RunningStage.TRAINING

    @training.setter
    def training(self, value: bool) -> None:
        if value:
            self.state.stage = RunningStage.TRAINING
        elif self.training:
            self.state.stage = None


def search_for_gpus_once() -> None:
    """Where there is no GPU, have torch say so without opening NVIDIA's library anew at each step of Adam.

    Lightning has torch look through that library, after which a process may still fork. What is not there is searched
    for each time that torch is asked: 0.13 ms, where a fused step of a small model takes 0.07.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def is_single_device(trainer: pl.Trainer) -> bool:
    """Whether a step is PyTorch's own: one device, and no scaler of gradients in half precision."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return type(trainer.strategy) is SingleDeviceStrategy and scaler is None


def count_steps(trainer: pl.Trainer) -> Callable[[], None]:
    """What tells Lightning of an optimiser step that did not go through its wrapper (``trainer.global_step``)."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    def counted() -> None:
        progress.increment_ready()
        progress.increment_completed()

    return counted


def known_signature(hook: Callable[..., Any]) -> None:
    """Write a hook's signature down where Lightning looks for it in every step: 10 µs to find, 3 µs to read."""
    cast(Any, hook).__signature__ = inspect.signature(hook)


def resume_at_epoch_ends(trainer: Any) -> None:
    """Have a trainer with ``max_steps`` take a checkpoint from an epoch's end for what it is.

    Lightning would take it for one from the epoch's middle, and end that epoch a second time.

    Raises:
        RuntimeError: This version of Lightning decides it in another way.
    """
    loop = trainer.fit_loop
    if not callable(getattr(loop, "_iteration_based_training", None)):
        raise RuntimeError(
            "this version of Lightning has no FitLoop._iteration_based_training: resuming with max_steps would end an "
            "epoch twice; see pipeline.training.lightning_inside"
        )
    loop._iteration_based_training = lambda: False


def begin_epoch_again(trainer: Any) -> None:
    """Make the training loader's iterator anew, after the random state was restored at the epoch's start.

    A resumed fit makes it before that, and a shuffling loader draws its order when its iterator is made.
    """
    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is None:
        raise RuntimeError("Lightning's fit loop has no data fetcher at the start of an epoch")
    iter(fetcher)


def between_steps(trainer: Any) -> bool:
    """Whether what is logged now belongs to a training step, not to an epoch or an evaluation."""
    training = trainer.state.stage is not None and trainer.state.stage.value == "train"
    # None between epochs, True or False from an epoch's first step on.
    return training and trainer._logger_connector._first_loop_iter is not None
