"""How long a network of a ladder may be trained in the time that is left for it: a few steps are timed first."""

from __future__ import annotations

import math
import time

import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.core.sums import Sums
from pipeline.ladder.costs import seconds_of_rows
from pipeline.models.base import BaseModule
from pipeline.models.foreign import Wrapped
from pipeline.runs.finished import data_of
from pipeline.runs.length import long_enough, steps_of_an_epoch
from pipeline.runs.plan import RunPlan, plan_of
from pipeline.training.at_once import fits_at_once
from pipeline.training.building import build_model
from pipeline.training.features import are_kept, device_of, is_frozen, solves_first
from pipeline.training.step import Loop, Machine, Optimisation, train_on
from pipeline.training.threads import Threads

_SHARE, _OF_THE_LAST, _OF_A_SEARCH = 0.15, 0.25, 0.3
"""Of the time that is left, what a rung may take, the last before a search, and the search: the first are the quick."""
_LEAST_SEARCH = 15.0
_WARM, _TIMED = 3, 12
_FEATURES = 64
_OF_THE_TIME = 0.8
"""What the steps may take of the time; the rest goes into validation, checkpoints and the start of the fit."""


def seconds_for(after: int, left: float, blend: float | None) -> float:
    """What a rung may take of the time that is left; 0 leaves it out.

    Args:
        after: Number of rungs that come after it, a blend not counted; the last one searches settings.
        left: Seconds that are left.
        blend: Of a search before a blend, the time that the blend takes, which gains more; None elsewhere.
    """
    seconds = left * {0: _OF_A_SEARCH, 1: _OF_THE_LAST}.get(after, _SHARE)
    if blend is None:
        return seconds
    seconds = min(seconds, left - blend)
    return seconds if seconds >= _LEAST_SEARCH else 0.0


def epochs_within(cfg: DictConfig, seconds: float) -> int | None:
    """How many epochs a fit of ``trainer.max_epochs=auto`` has where it may take some seconds.

    A schedule that ends with the fit is then made for the time there is, where a fit that is cut off would end in the
    middle of it.

    Args:
        cfg: The fit's configuration.
        seconds: Time that it may take.

    Returns:
        At least 1; None where the length was given, or the model is not trained in steps.
    """
    plan = plan_of(cfg)
    if plan.fit.trainer.get("max_epochs") != "auto":
        return None
    data = data_of(cfg)
    model = build_model(plan.model, data, plan.fit)
    if not isinstance(model, BaseModule) or fits_at_once(model):
        return None
    suited = int(long_enough(plan, data)[0].fit.trainer["max_epochs"])
    epoch = steps_of_an_epoch(plan, data) * seconds_of_a_step(plan, model, data)
    return max(1, min(suited, math.floor(_OF_THE_TIME * seconds / epoch)))


def seconds_of_a_step(plan: RunPlan, model: BaseModule, data: DataModule) -> float:
    """Time of one training step, measured, in seconds; the weights stay as they are, at a learning rate of 0."""
    batches = iter(data.train.order(data.batch_size) * (_WARM + _TIMED))
    # Changed images may be smaller ones.
    change = data.training_loader(plan.seed).augment or (lambda x: x)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    loop = Loop(model, Optimisation(lambda _: optimizer), model, Sums(model.spec))
    machine = Machine(optimizer, Tensor.backward, None, None, None, on_host=True, autocast=False)
    times = []
    with Threads(plan.fit.trainer, model, data.batch_size):
        model.train()
        for _ in range(_WARM + _TIMED):
            began = time.perf_counter()
            x, y = data.train.take(next(batches))
            train_on(loop, machine, change(x), y)
            times.append(time.perf_counter() - began)
    return sum(times[_WARM:]) / _TIMED


def seconds_of_features(cfg: DictConfig) -> float | None:
    """Time that the features take from which a network's last layer is solved, by those of a batch, in seconds.

    Args:
        cfg: The fit's configuration.

    Returns:
        None where none is solved; 0 where they are in the cache already.
    """
    if not (cfg.model.get("freeze") or cfg.model.get("solve_first")):
        return None
    plan, data = plan_of(cfg), data_of(cfg)
    model = build_model(plan.model, data, plan.fit)
    if not isinstance(model, Wrapped) or not (is_frozen(model) or solves_first(model)):
        return None
    # To look for those of images that are decoded anew each time would take about as long.
    if not data.train.decodes and are_kept(data, model):
        return 0.0
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    device = device_of(plan.fit.trainer)
    x = data.train.take(torch.arange(min(_FEATURES, len(data.train))))[0].to(device)
    with torch.inference_mode():
        model.eval().to(device)
        # The first time takes longer; asked for on the processor, the answer is waited for.
        model.features(x).cpu()
        began = time.perf_counter()
        model.features(x).cpu()
        seconds = time.perf_counter() - began
    model.to("cpu")
    return sum(seconds_of_rows(seconds, x, split) for split in splits)
