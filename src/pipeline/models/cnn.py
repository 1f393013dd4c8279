"""The teaching CNN: convolutions with pooling, then one fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.layers import BatchNorm2d, output_layer
from pipeline.models.layers import activation as make_activation
from pipeline.settings import BELOW_ONE, Flag, Number, Text


class CNN(BaseModule):
    """Convolution, activation and 2×2 max-pooling for each entry of ``channels``, then a fully connected layer.

    Args:
        spec: Description of the data, which must be images.
        channels: Number of output channels of each convolution.
        kernel_size: Width and height of the kernels in pixels; the output keeps the input's size.
        hidden_units: Width of the fully connected layer.
        dropout: Share of that layer's outputs set to 0 in training.
        activation: Name of the activation.
        batch_norm: Whether to normalise after each convolution.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        channels: Annotated[Sequence[int], Number(1, whole=True, many=True)] = (32, 64),
        kernel_size: Annotated[int, Number(1, whole=True, many=True)] = 5,
        hidden_units: Annotated[int, Number(1, whole=True, many=True, null=True)] = 1024,
        dropout: Annotated[float, BELOW_ONE] = 0.4,
        activation: Annotated[str, Text("the name of an activation, like relu")] = "relu",
        batch_norm: Annotated[bool, Flag()] = False,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if self.spec.input != "image":
            raise UserError(
                f"model=cnn needs images, but this data gives {self.spec.input}; use model=mlp or model=lstm"
            )
        inputs, height, width = self.spec.input_shape
        blocks: list[nn.Module] = []
        for outputs in channels:
            blocks.append(nn.Conv2d(inputs, outputs, kernel_size, padding="same"))
            if batch_norm:
                blocks.append(BatchNorm2d(outputs))
            pool: list[nn.Module] = []
            if min(height, width) >= 2:
                pool.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            # The largest of four activations is the activation of the largest where it rises monotonically:
            # pooling first then gives the same values for a quarter of the work.
            act = [make_activation(activation)]
            blocks += act + pool if activation in ("gelu", "silu") else pool + act
            inputs = outputs
        self.convolutions = nn.Sequential(*blocks)
        self.hidden = nn.Sequential(
            nn.Linear(inputs * height * width, hidden_units), make_activation(activation), nn.Dropout(dropout)
        )
        self.output = output_layer(hidden_units, self.spec)
        self.initialise()
        # Channels last: the layout that CPU and GPU convolution kernels are fastest in (1.5 times on a CPU).
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        images = self.normalised(x).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.output(self.hidden(self.convolutions(images).flatten(1)))
        return logits
