"""Schedules of the learning rate that end with the time where that is over before the steps are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from pipeline.training.agreeing import of_the_first
from pipeline.training.step import Optimisation

PARTS = 1000
"""Moves of a schedule whose fit has no planned number of steps: ``trainer.max_epochs=-1`` and a time."""


class ByTheClock:
    """Moves a schedule that is laid out for the whole fit, by what is done or by the time, whichever is further.

    With ``trainer.max_time`` a fit may end long before its last planned step, in the middle of its schedule: the rate
    would never come down. Here the progress is the larger one of *steps made / steps planned* and *time spent / time
    allowed*, and a schedule of so many moves stands at that part of them.

    As long as the steps are ahead, every move is made where it would be without a limit: a fit that has time enough
    ends with the same bits as one without a limit. From the step on at which the clock is ahead (``since``), the rate
    depends on how fast the machine is, and neither another run nor ``task=reproduce`` meets the same rates again, as
    neither ends at the same step. A resumed fit goes on with the schedule and with the time spent as its checkpoint has
    them; steps that were made after it are made again, at the rates of another moment.

    Args:
        scheduler: The schedule of torch, made for ``moves`` moves.
        moves: Number of its moves over the whole fit.
        seconds: Time that the fit may take, in seconds.
        unit: What is counted beside the time: a ``step``, an ``epoch``, or None where nobody said how many there are
            to be.
        since: Optimiser step after which the clock was ahead first, before the fit was resumed; None where it was not.

    Attributes:
        since: Optimiser step after which the clock was ahead first; None while it was not.
    """

    def __init__(
        self, scheduler: Any, moves: int, seconds: float, unit: str | None, since: int | None = None
    ) -> None:
        self.scheduler, self.moves, self.seconds, self.unit = scheduler, moves, seconds, unit
        self.since = since

    @property
    def words(self) -> str:
        """What a reader of the result is to know; empty where the clock had no say."""
        if self.since is None:
            return ""
        return (
            f"from step {self.since:,} on the learning rate's schedule followed the clock, to end with "
            "trainer.max_time: task=reproduce and other machines come to other rates"
        )

    def move(self, trainer: pl.Trainer, steps: int, epochs: int) -> None:
        """Move the schedule to where it is to be now.

        Args:
            trainer: Trainer of the fit, which has a limit in time; of several processes the first one's clock counts.
            steps: Optimiser steps that are made.
            epochs: Epochs that are over.
        """
        spent = of_the_first(trainer, seconds_spent(trainer))
        done = steps if self.unit == "step" else epochs if self.unit == "epoch" else 0
        by_time = int(self.moves * spent / self.seconds)
        if by_time > done and self.since is None:
            self.since = steps
        # Some schedules refuse to go on after their last move, others begin anew.
        until = min(self.moves, max(by_time, done))
        while self.scheduler.last_epoch < until:
            self.scheduler.step()


def by_the_clock(
    trainer: pl.Trainer,
    plan: Optimisation,
    scheduler: Any,
    total_steps: Callable[[], int],
    since: int | None = None,
) -> ByTheClock | None:
    """What moves the schedule of a fit with a limit in time; None where the clock has no say.

    Args:
        trainer: Trainer of the fit.
        plan: How the model is optimised.
        scheduler: The schedule.
        total_steps: Function that gives the number of steps that schedules by steps are made for.
        since: See :class:`ByTheClock`.
    """
    if plan.scheduler is None or plan.seconds is None:
        return None
    epochs = trainer.max_epochs or 1
    unit: str | None = plan.interval
    if epochs < 0:
        unit = None if trainer.max_steps == -1 else "step"
    moves = epochs if unit == "epoch" else total_steps()
    return ByTheClock(scheduler, moves, plan.seconds, unit, since)


def seconds_spent(trainer: pl.Trainer) -> float:
    """Time that the fit has taken by the clock that ends it, with what it took before it was resumed."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next(one for one in callbacks if isinstance(one, Timer)).time_elapsed()
