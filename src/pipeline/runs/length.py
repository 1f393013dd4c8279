"""How long a fit is where nobody said so: as many steps as suit the number of samples; and how a fit ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import UserError
from pipeline.metrics import higher_is_better, judged_by
from pipeline.runs.plan import RunPlan
from pipeline.runs.result import RunResult

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule

log = logging.getLogger(__name__)

OUT_OF_TIME = "its time ran out before it had stopped improving, so no verdict on this kind of model"
"""Why a model whose fit was cut off by its time may not have learnt all that it can."""
_STEPS, _SAMPLES = 2500, 1000
"""Steps that suit so many samples; they grow with the square root of the number of samples."""
_MOST_EPOCHS = 300
_PATIENCE, _LEAST_PATIENCE = 0.35, 10
"""Share of the epochs, and epochs at least, without an improvement after which the fit stops."""
_LAST, _LEAST_POINTS, _NOISE, _OF_ALL = 0.25, 4, 2.0, 0.03
"""Share of the epochs that are the end of a fit, the least number of epochs whose noise can be told, how many times its
noise an improvement must be, and which share of the whole fit's improvement."""


def long_enough(plan: RunPlan, data: DataModule) -> tuple[RunPlan, list[str]]:
    """The plan with a number of epochs, and what is said about it.

    ``trainer.max_epochs=auto`` becomes a number that suits the data. Epochs that suit the data set that was asked for
    are a handful of steps on a stand-in a hundredth of its size: it gets more.

    Raises:
        UserError: It is ``auto``, and the number of samples is not known.
    """
    epochs = plan.fit.trainer.get("max_epochs")
    if epochs == "auto":
        return _suited(plan, data), []
    if data.used == data.requested or not data.stand_in_steps or not epochs or epochs < 0:
        return plan, []
    wanted = math.ceil(data.stand_in_steps / steps_of_an_epoch(plan, data))
    if wanted <= epochs:
        return plan, []
    note = (
        f"trained for {wanted} epochs instead of {epochs}, since the stand-in {data.used} is small "
        "(data.stand_in_steps=null or trainer.max_epochs=N for another length)"
    )
    log.warning("%s: %s", data.used, note)
    return plan.changed(trainer={"max_epochs": wanted}), [note]


def steps_of_an_epoch(plan: RunPlan, data: DataModule) -> int:
    """Optimiser steps in an epoch.

    Raises:
        UserError: The data does not say how many samples it has.
    """
    try:
        batches = data.train.batches(data.batch_size)
    except (AttributeError, TypeError):
        raise UserError(
            f"trainer.max_epochs=auto: how many samples {data.name} has is not known; give a number"
        ) from None
    return math.ceil(batches / int(plan.fit.trainer.get("accumulate_grad_batches") or 1))


def steps_that_suit(samples: int) -> int:
    """Optimiser steps of a fit to so many samples."""
    return round(_STEPS * math.sqrt(max(1.0, samples / _SAMPLES)))


def _suited(plan: RunPlan, data: DataModule) -> RunPlan:
    steps = steps_of_an_epoch(plan, data)
    epochs = min(_MOST_EPOCHS, math.ceil(steps_that_suit(len(data.train)) / steps))
    plan = plan.changed(trainer={"max_epochs": epochs})
    stopping = dict(plan.fit.callbacks.get("early_stopping") or {})
    watched = plan.fit.checkpoint.monitor is not None and data.validation is not None and len(data.validation)
    if stopping.get("patience") is None and watched:
        stopping["patience"] = max(_LEAST_PATIENCE, math.ceil(_PATIENCE * epochs))
        plan = plan.changed(callbacks={"early_stopping": stopping})
    return plan


def _epochs_trained(result: RunResult) -> int:
    return max((len(points) for points in result.history.values()), default=0)


def _ran_out(asked: RunPlan, plan: RunPlan, result: RunResult) -> bool:
    """Whether the time of a fit of a length that nobody gave was over before it stopped improving."""
    best, trained = result.best_epoch, _epochs_trained(result)
    if asked.fit.trainer.get("max_epochs") != "auto" or not best or not trained:
        return False
    patience = (plan.fit.callbacks.get("early_stopping") or {}).get("patience") or math.inf
    return trained < int(plan.fit.trainer["max_epochs"]) and trained - best < patience


def how_it_ended(asked: RunPlan, plan: RunPlan, data: DataModule, result: RunResult) -> list[str]:
    """Whether a fit of a length that nobody gave went on until it stopped improving.

    Args:
        asked: The plan before :func:`long_enough`.
        plan: The plan after it.
        data: The data.
        result: What the fit came to.
    """
    best, trained = result.best_epoch, _epochs_trained(result)
    if asked.fit.trainer.get("max_epochs") != "auto" or not asked.train or not best or not trained:
        return []
    epochs, steps = int(plan.fit.trainer["max_epochs"]), steps_of_an_epoch(plan, data)
    if _ran_out(asked, plan, result):
        return [f"its time ran out after {trained * steps:,} steps (epoch {trained} of {epochs})"]
    if best < trained:
        return [f"stopped improving after {best * steps:,} steps (epoch {best} of {trained})"]
    if plan.fit.scheduler:
        return [f"trained to the end of its schedule: {trained * steps:,} steps ({trained} epochs)"]
    return [
        f"still improving after {trained * steps:,} steps: trainer.max_epochs={2 * trained} lets it go on"
    ]


def unfinished(asked: RunPlan, plan: RunPlan, result: RunResult) -> str:
    """Why a fit may not have learnt all that it can, in words; empty where it stopped improving.

    Args:
        asked: The plan before :func:`long_enough`.
        plan: The plan after it.
        result: What the fit came to.
    """
    trained = _epochs_trained(result)
    if not asked.train or not trained:
        return ""
    goes_on = f"trainer.max_epochs={2 * trained} goes on"
    if _ran_out(asked, plan, result):
        return OUT_OF_TIME
    if plan.fit.scheduler and asked.fit.trainer.get("max_epochs") == "auto":
        return ""
    if still_improving(result.history):
        return f"it was still improving when it ended, so no verdict on this kind of model: {goes_on}"
    return ""


def still_improving(history: Mapping[str, Sequence[tuple[int, float]]]) -> bool:
    """Whether a fit's validation figures (without any, its training figures) were still getting better at the end.

    They are if those of the last quarter of the epochs are on average better than the best one before, by more than
    twice the noise of such a mean and by more than 3 % of what the whole fit brought. The noise is that of the second
    differences of the curve, in which a steady trend is not seen. Of fewer than four epochs, the last one has to be
    the best.

    Args:
        history: Metrics by epoch: ``val/accuracy`` → (epoch, value) pairs.
    """
    for split in ("val", "train"):
        names = {name.partition("/")[2] for name in history if name.startswith(f"{split}/")}
        if not names:
            continue
        watched = {judged_by(names), *names.intersection({"loss"})} - {None}
        return any(_improving(f"{split}/{name}", history) for name in watched)
    return False


def _improving(name: str, history: Mapping[str, Sequence[tuple[int, float]]]) -> bool:
    values = np.array([value for _, value in history[name]], dtype=np.float64)
    if not higher_is_better(name):
        values = -values
    if len(values) < 2 or not np.isfinite(values).all():
        return False
    if len(values) < _LEAST_POINTS:
        return bool(values[-1] > values[:-1].max())
    last = math.ceil(_LAST * len(values))
    before = values[:-last].max()
    noise = float(np.sqrt(np.square(np.diff(values, 2)).mean() / 6))
    step = float(values[-last:].mean() - before)
    return step > _NOISE * noise / math.sqrt(last) and step > _OF_ALL * float(values.max() - values[0])
