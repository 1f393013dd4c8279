"""A small residual network that is strong from scratch on small pictures."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.layers import BatchNorm2d
from pipeline.settings import Number


class ResNet9(BaseModule):
    """Eight convolutions, two of them pairs that are added to what they got, and a linear layer (after Page 2018).

    Pooling halves the sides three times at most, as long as there are 4 pixels; of the last map mean and largest value
    are taken, so that pictures may have any size.

    Args:
        spec: Description of the data, which must be images.
        width: Number of channels of the first convolution; they double three times.
        dropout: Share of the last features set to 0 in training.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        width: Annotated[int, Number(1, whole=True)] = 32,
        dropout: Annotated[float, Number(0, 1, below=True)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if self.spec.input != "image":
            raise UserError(f"model=resnet9 needs images, but this data gives {self.spec.input}")
        channels, height, wide = self.spec.input_shape
        side = min(height, wide)
        pools = [side >= 8, side >= 16, side >= 32]
        self.body = nn.Sequential(
            _convolution(channels, width, pool=False),
            _convolution(width, 2 * width, pool=pools[0]),
            Residual(2 * width),
            _convolution(2 * width, 4 * width, pool=pools[1]),
            _convolution(4 * width, 8 * width, pool=pools[2]),
            Residual(8 * width),
        )
        self.mean, self.most = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(8 * width, self.spec.outputs)
        self.initialise()
        # Channels beside each other in memory: a step takes a fifth less time.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(self.normalised(x))
        logits: Tensor = self.output(self.dropout((self.mean(maps) + self.most(maps)).flatten(1)))
        return logits


class Residual(nn.Module):
    """Two convolutions whose result is added to their input.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, pool=False)
        self.second = _convolution(channels, channels, pool=False)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.second(self.first(x))
        return added


def _convolution(inputs: int, outputs: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        BatchNorm2d(outputs),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))
