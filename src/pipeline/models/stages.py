"""The parts of a network that comes from elsewhere: its last layer, and its stages from the input to the output."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NUMBERED = re.compile(r"^(?P<stage>(?:[^.]+\.)*?(?:[^.]*?_?\d+))(?:\.|$)")


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Layers of batch normalisation, which keep running statistics."""


class StandardisedHead(nn.Linear):
    """A last layer that takes features in whatever units they come: they get mean 0 and deviation 1 first.

    Args:
        features: Number of features.
        outputs: Number of outputs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        # The same for every seed: what is learnt from features has one minimum.
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def fit(self, features: Tensor) -> None:
        """Take over the statistics of features (samples, features); constant ones become 0."""
        mean, std = features.double().mean(0), features.double().std(0, unbiased=False)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.ones_like(std)))

    def standardised(self, features: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1 over those that :meth:`fit` saw."""
        return (features - self.mean) / self.std

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.standardised(input), self.weight, self.bias)


def head_of(net: nn.Module, called: Any, outputs: int) -> tuple[str | None, bool]:
    """The last layer of a network that has as many outputs as it has.

    Args:
        net: The network.
        called: Function that calls it once.
        outputs: Number of its outputs.

    Returns:
        The layer's name, None where there is no such layer, and whether what it gives is what the network gives.
    """
    met: list[tuple[str, Tensor]] = []
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and _width(module) == outputs:

            def note(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                met.append((name, output))

            hooks.append(module.register_forward_hook(note))
    try:
        answer = called()
    finally:
        for hook in hooks:
            hook.remove()
    if not met:
        return None, False
    name, output = met[-1]
    same = isinstance(net.get_submodule(name), nn.Linear) and output.shape == answer.shape
    return name, bool(same and torch.equal(output, answer))


def _width(module: nn.Linear | nn.Conv2d) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.out_channels


def replace_layer(net: nn.Module, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of the one called ``name``."""
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, layer)


def stage_of(name: str) -> str:
    """The stage that a parameter or layer belongs to: its name up to the first number, or its layer's.

    Example:
        >>> stage_of("features.3.0.conv.weight"), stage_of("layer4.1.bn1.bias"), stage_of("conv1.weight")
        ('features.3', 'layer4', 'conv1')
    """
    found = _NUMBERED.match(name)
    return found["stage"] if found else name.rpartition(".")[0] or name


def stages(net: nn.Module, head: str | None) -> list[str]:
    """The stages of a network that have weights, from the input on, without its last layer."""
    names = [
        stage_of(name)
        for name, _ in net.named_parameters()
        if head is None or name.rpartition(".")[0] != head
    ]
    return list(dict.fromkeys(names))
