"""The training step: from a batch to new weights, one function to read from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from pipeline.data.core.sums import Sums
from pipeline.errors import Diverged
from pipeline.models.base import BaseModule, State
from pipeline.training.averaging import Average
from pipeline.training.carried import detached, joined, of_samples
from pipeline.training.divergence import LossWatch, diverged
from pipeline.training.softening import Softening
from pipeline.training.step_curve import StepCurve, gradient_norm


@dataclass(frozen=True)
class Optimisation:
    """How a model is trained; from the ``optimizer``, ``scheduler`` and ``trainer`` settings.

    Args:
        optimizer: Maker of the optimiser from the groups of parameters.
        scheduler: Maker of the learning-rate schedule from the optimiser and the total number of optimiser steps.
        interval: How often the schedule moves: every ``step`` or every ``epoch``.
        monitor: Metric that a schedule which waits for a plateau watches.
        seconds: Time (seconds) with which a schedule that is laid out for the whole fit ends, if that is over before
            the steps are made; None for a schedule that knows of no time.
        accumulate: Number of batches whose gradients are added up for one optimiser step.
        clip_value: Largest norm (or value) of the gradient, None for no clipping.
        clip_algorithm: ``norm`` or ``value``.
        soften: Function that makes a batch's targets less sure, None where they stay as they are.
        ema: Share of itself that the mean of the weights keeps at each step; None where the last weights count.
    """

    optimizer: Callable[[Any], torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None
    interval: str = "epoch"
    monitor: str | None = None
    seconds: float | None = None
    accumulate: int = 1
    clip_value: float | None = None
    clip_algorithm: str = "norm"
    soften: Softening | None = None
    ema: float | None = None


@dataclass
class Machine:
    """What differs between one device and several, between precisions and between kinds of hardware.

    Args:
        optimizer: The optimiser, or what a strategy wrapped around it.
        backward: Function that computes the gradients of an objective.
        clip: Function that cuts the gradients, None where they stay as they are.
        counted: Function called after each optimiser step, which counts it; None where the optimiser does.
        schedule: Function that moves a schedule that moves every step, None where there is none.
        on_host: Whether the model is on the processor, where reading a loss costs nothing.
        autocast: Whether arithmetic is in mixed precision.
        whole_gradient: Whether this process holds the gradient of every weight.
        scale: Function that says what gradients are multiplied with (in half precision), None where they are not.
    """

    optimizer: Any
    backward: Callable[[Tensor], None]
    clip: Callable[[], None] | None
    counted: Callable[[], None] | None
    schedule: Callable[[], None] | None
    on_host: bool
    autocast: bool
    whole_gradient: bool = True
    scale: Callable[[], float] | None = None


@dataclass
class Loop:
    """Where the training stands.

    Args:
        model: The network that is trained.
        plan: Plan of its training.
        forward: What computes the logits: the model, or what was compiled of it.
        sums: Sums of the running epoch.
        losses: Losses that are still on their device, to be looked at later.
        state: What the model carries into the next batch.
        batches: Batches in an epoch.
        batches_done: Batches of the running epoch that are done.
        waiting: Batches whose gradients wait for the optimiser's step.
        pieces: Number of parts in which a batch goes through the model where it is too large for memory as a whole.
        step: Optimiser steps that were made.
        epoch: Number of the running epoch, from 0.
        curve: Points of the curves within epochs, None where none are kept.
        average: Mean of the weights over the last steps, None where there is none.
    """

    model: BaseModule
    plan: Optimisation
    forward: Callable[[Tensor], Tensor]
    sums: Sums
    losses: LossWatch = field(default_factory=LossWatch)
    state: State = None
    batches: int = 0
    batches_done: int = 0
    waiting: int = 0
    pieces: int = 1
    step: int = 0
    epoch: int = 0
    curve: StepCurve | None = None
    average: Average | None = None


def train_on(loop: Loop, machine: Machine, x: Tensor, y: Tensor) -> None:
    """Learn from one batch: forward, loss, backward, and the optimiser's step once enough batches are added up.

    Args:
        loop: Where the training stands; it is one batch further afterwards.
        machine: Machine that computes gradients and makes steps.
        x: Inputs, (samples, …).
        y: Targets, (samples, …).

    Raises:
        Diverged: The loss is NaN or infinite.
    """
    model, plan, objective = loop.model, loop.plan, loop.model.objective
    carried, states = loop.state, []
    for part, share in _parts(loop, y):
        some_x, some_y = (x, y) if part is None else (x[part], y[part])
        state = carried if part is None else of_samples(carried, part)
        if share:
            softened = plan.soften(some_x, some_y) if plan.soften is not None else None
            if model.spec.stateful:
                logits, state = model.forward_state(some_x, state)
                state = detached(state)
            else:
                logits = loop.forward(some_x if softened is None else softened.x)
            loss = objective.loss(logits, some_y) if softened is None else softened.loss(objective, logits)
            if not machine.on_host:
                rate = learning_rate(machine.optimizer)
                loop.losses.add(loss.detach(), loop.step + 1, loop.epoch + 1, rate)
            elif not math.isfinite(value := loss.item()):
                _stop(f"the loss became {value}", loop, machine)
            loop.sums.add(loss.detach(), model.joined(logits.detach()), some_y, objective.threshold())
            penalty = objective.penalty(model.parameters())
            goal = loss if penalty is None else loss + penalty
            if plan.accumulate > 1:
                goal = goal / plan.accumulate
            machine.backward(goal if share == 1.0 else goal * share)
        states.append(state)
    loop.state = states[0] if len(states) == 1 else joined(states)

    loop.waiting += 1
    loop.batches_done += 1
    if loop.waiting < plan.accumulate and loop.batches_done != loop.batches:
        return
    curve = loop.curve if loop.curve is not None and loop.step + 1 >= loop.curve.next else None
    norm = None
    if curve is not None and machine.whole_gradient:
        norm = gradient_norm(model.parameters(), 1.0 if machine.scale is None else machine.scale())
    if machine.clip is not None:
        machine.clip()
    machine.optimizer.step()
    if loop.average is not None:
        loop.average.update(model)
    loop.waiting = 0
    loop.step += 1
    if curve is not None:
        curve.note(loop.step, loop.sums, learning_rate(machine.optimizer), norm)
    if machine.counted is None:
        machine.optimizer.zero_grad()
    else:
        # What zero_grad does, without its entry in torch's profiler.
        for group in machine.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        machine.counted()
    if machine.autocast:
        # Autocast keeps its copies of the weights until its context ends, which is later than this step.
        torch.clear_autocast_cache()
    if machine.schedule is not None:
        machine.schedule()


def learning_rate(optimizer: Any) -> float:
    """The learning rate of the first group; 0 where nothing is trained."""
    return float(optimizer.param_groups[0]["lr"]) if optimizer else 0.0


def _parts(loop: Loop, y: Tensor) -> Iterator[tuple[slice | None, float]]:
    """The parts of a batch, each with its share of the targets; (None, 1.0) for the batch as a whole."""
    if loop.pieces == 1:
        yield None, 1.0
        return
    spec = loop.model.spec
    known = (y >= 0) if spec.per_step and spec.task != "regression" else torch.ones_like(y)
    total = int(known.sum())
    for rows in torch.arange(len(y)).split(-(-len(y) // loop.pieces)):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        yield part, int(known[part].sum()) / total if total else 0.0


def _stop(what: str, loop: Loop, machine: Machine) -> NoReturn:
    raise diverged(what, loop.step + 1, loop.epoch + 1, learning_rate(machine.optimizer), loop.sums.last_loss)


def after_step(what: str, loop: Loop, optimizer: Any, on_host: bool) -> Diverged:
    """The error that ends the fit after the step that was just made."""
    last = loop.sums.last_loss if on_host else loop.losses.last
    return diverged(what, loop.step, loop.epoch + 1, learning_rate(optimizer), last)
