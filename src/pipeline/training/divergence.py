"""Noticing that a loss is no longer a number, also where reading it would make the device wait."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import Diverged

EVERY = 25
"""Losses that are looked at together; at most twice as many steps pass before a bad one is noticed."""


def diverged(what: str, step: int, epoch: int, rate: float, last: float | None) -> Diverged:
    """The error that ends a fit.

    Args:
        what: What happened, in words.
        step: Number of the optimiser step, from 1.
        epoch: Number of the epoch, from 1.
        rate: Learning rate of that step.
        last: Last finite loss before it, None if there was none.
    """
    return Diverged(
        f"{what} at step {step} (epoch {epoch}, learning rate {rate:g}; last finite loss "
        f"{'none' if last is None else f'{last:.6g}'}). "
        f"Lower optimizer.lr, clip with trainer.gradient_clip_val, or set trainer.on_divergence=lower_lr"
    )


@dataclass
class _Group:
    """Losses that travel to the host together, and what is said if one of them is bad."""

    places: list[tuple[int, int, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    values: Tensor | None = None
    arrived: torch.cuda.Event | None = None

    def send(self) -> None:
        stacked = torch.stack(self.losses)
        self.losses = []
        if not stacked.is_cuda:
            self.values = stacked.cpu()
            return
        self.values = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
        self.values.copy_(stacked, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return [] if self.values is None else self.values.tolist()


class LossWatch:
    """Looks at losses without waiting for them.

    Losses stay on their device. Every ``EVERY`` steps they are copied to the host, and those of the group before, which
    have arrived by then, are looked at.

    Args:
        holds: Whether the error is kept in `found` instead of raised, for all processes of a training to raise it at
            the same place.
    """

    def __init__(self, holds: bool = False) -> None:
        self.holds = holds
        self.found: Diverged | None = None
        self.last: float | None = None
        self._now = _Group()
        self._sent = _Group()

    def add(self, loss: Tensor, step: int, epoch: int, rate: float) -> None:
        """Note one loss.

        Args:
            loss: Loss, a detached scalar.
            step: Number of the optimiser step that it leads to, from 1.
            epoch: Number of the epoch, from 1.
            rate: Learning rate of that step.

        Raises:
            Diverged: One of the losses before it was not finite.
        """
        self._now.losses.append(loss)
        self._now.places.append((step, epoch, rate))
        if len(self._now.losses) == EVERY:
            self._look(self._sent)
            self._now.send()
            self._sent, self._now = self._now, _Group()

    def check(self) -> None:
        """Look at all of them now, and wait for them.

        Raises:
            Diverged: One of them was not finite.
        """
        sent, now = self._sent, self._now
        self._sent, self._now = _Group(), _Group()
        self._look(sent)
        if now.losses:
            now.send()
            self._look(now)

    def _look(self, group: _Group) -> None:
        for (step, epoch, rate), value in zip(group.places, group.read(), strict=True):
            if not math.isfinite(value):
                error = diverged(f"the loss became {value}", step, epoch, rate, self.last)
                if not self.holds:
                    raise error
                self.found = self.found or error
                return
            self.last = value
