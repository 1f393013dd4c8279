"""The mean of the weights over the last steps, which is judged and kept in the place of the last ones."""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pipeline.errors import UserError
from pipeline.models.base import BaseModule

_WARM = 10
"""Steps after which the mean is over about a tenth of those that were made, until it is as long as asked for."""


class Average:
    """An exponential moving average of a model's weights and statistics (torch's ``AveragedModel``).

    In the first steps it is shorter, so that it does not hold on to where the training began: after ``n`` steps the
    mean keeps ``min(decay, (1 + n) / (10 + n))`` of itself at each.

    Args:
        model: The model, on its device.
        decay: Share of itself that the mean keeps at each step.
    """

    def __init__(self, model: BaseModule, decay: float) -> None:
        @torch.no_grad()
        def add(means: Any, values: Any, count: Tensor | int) -> None:
            share = 1 - min(decay, (1 + int(count)) / (_WARM + int(count)))
            if means[0].is_floating_point():
                torch._foreach_lerp_(means, values, share)
            else:
                for mean, value in zip(means, values, strict=True):
                    mean.copy_(value)

        self._averaged = AveragedModel(model, multi_avg_fn=cast(Any, add), use_buffers=True)
        self._averaged.requires_grad_(False)
        self.model.eval()

    @property
    def model(self) -> BaseModule:
        """The model with the mean weights."""
        return cast(BaseModule, self._averaged.module)

    def update(self, model: BaseModule) -> None:
        """Take the weights after one more step into account."""
        self._averaged.update_parameters(model)

    @property
    def steps(self) -> int:
        """Steps that it has seen."""
        return int(self._averaged.n_averaged)

    @steps.setter
    def steps(self, steps: int) -> None:
        self._averaged.n_averaged.fill_(steps)


def refuse_sharded(strategy: Any) -> None:
    """Refuse a mean where no process has all weights.

    Raises:
        UserError: The weights are shared out among the processes.
    """
    if isinstance(strategy, FSDPStrategy):
        raise UserError(
            "trainer.ema: with trainer=fsdp no process has all the weights; set trainer.ema=null or trainer=ddp"
        )
