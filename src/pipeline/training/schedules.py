"""Schedules of the learning rate that torch has no class for."""

from __future__ import annotations

import math
from typing import Annotated

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pipeline.settings import Number


class WarmupCosine(LambdaLR):
    """Rises in a straight line, then falls along half a cosine (Loshchilov and Hutter 2017), over the whole run.

    Every group of parameters keeps its share of the rate.

    Args:
        optimizer: The optimiser.
        total_steps: Number of optimiser steps of the run.
        warmup: Share of the run that rises.
        final: Share of the learning rate at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Annotated[int, Number(1, whole=True, words=("auto",))],
        warmup: Annotated[float, Number(0, 1, below=True)] = 0.1,
        final: Annotated[float, Number(0, 1)] = 0.0,
    ) -> None:
        rising = round(total_steps * warmup)

        def share(step: int) -> float:
            if step < rising:
                # Not 0: the first step would learn nothing.
                return (step + 1) / (rising + 1)
            done = min(1.0, (step - rising) / max(1, total_steps - rising))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, share)
