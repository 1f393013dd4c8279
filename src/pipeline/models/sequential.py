"""Layers of torch.nn in any order, as a list of short names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError, reason_of
from pipeline.models import layers as own
from pipeline.models.base import BaseModule
from pipeline.settings import Layers

_SIZES = {
    "in_features": -1,
    "in_channels": 1,
    "num_features": 1,
    "num_channels": 1,
    "normalized_shape": -1,
}
"""Arguments that follow from the layer before, and the axis of its output that says how much they are."""
_RECURRENT = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Transformer, nn.TransformerDecoder)


class Sequential(BaseModule):
    """Layers one after the other, and a linear output layer that follows from the data.

    A layer is a class of torch.nn, written as one word in small letters: ``relu``, ``leaky_relu``, ``max_pool2d``. Its
    arguments stand behind it: ``{linear: 20}``, ``{conv2d: [16, 3]}``, ``{dropout: {p: 0.3}}``; how many inputs it has
    follows from what comes before it. Images are flattened where the first linear layer comes.

    Args:
        spec: Description of the data: samples of a fixed size.
        layers: The hidden layers, from the first to the last.
        **shared: Settings that every model takes, see :class:`BaseModule`.

    Raises:
        UserError: There is no layer of a name, or it does not fit what comes before it.

    Example:
        >>> Sequential(spec, [{"linear": 20}, "relu", {"dropout": 0.3}])
    """

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        layers: Annotated[Sequence[str | Mapping[str, Any]], Layers()] = ({"linear": 64}, "relu"),
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if not isinstance(layers, list | tuple):
            raise UserError(
                f"model.layers={layers}: model=sequential takes a list of layers, like [{{linear: 20}}, relu]"
            )
        if self.spec.input == "tokens" or self.spec.per_step or 0 in self.spec.input_shape:
            raise UserError(
                f"model=sequential needs samples of a fixed size, but this data gives sequences ({self.spec.input}); "
                "use model=lstm, model=gru, model=rnn or model=transformer"
            )
        # One sample more than one, or what normalises over a batch would refuse it.
        x = torch.zeros(2, *self.spec.input_shape)
        made: list[nn.Module] = []
        for position, described in enumerate(layers):
            name, arguments = _described(described, position)
            kind = _kind(name, position)
            if kind is nn.Linear and x.dim() > 2 and self.spec.input == "image":
                made.append(nn.Flatten())
                x = x.flatten(1)
            made.append(_made(kind, arguments, x, f"model.layers[{position}]={_shown(described)}"))
            x = _through(made[-1], x, f"model.layers[{position}]={_shown(described)}")
        if x.dim() != 2:
            made.append(nn.Flatten())
            x = x.flatten(1)
        self.layers = nn.Sequential(*made)
        self.output = own.output_layer(x.shape[1], self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.layers(self.normalised(x)))
        return logits


@cache
def layer_classes() -> dict[str, type[nn.Module]]:
    """The layers of torch.nn by their short names; those that hold other modules, and losses, are none."""
    found = {
        name: kind
        for name, kind in vars(nn).items()
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and not name.startswith("Lazy")
    }
    # Ours take a last batch of a single sample too.
    found |= {"BatchNorm1d": own.BatchNorm1d, "BatchNorm2d": own.BatchNorm2d}
    return {
        _short(name): kind
        for name, kind in found.items()
        if kind is not nn.Module and not issubclass(kind, _RECURRENT) and not _holds_others(kind)
    }


def _holds_others(kind: type[nn.Module]) -> bool:
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    transformers = (nn.TransformerEncoder, nn.TransformerDecoderLayer, nn.AdaptiveLogSoftmaxWithLoss)
    distances = (nn.CosineSimilarity, nn.PairwiseDistance, nn.Bilinear)
    return issubclass(kind, (*containers, *transformers, *distances)) or kind.__name__.endswith("Loss")


def _short(name: str) -> str:
    """``LeakyReLU`` and ``leaky_relu`` alike."""
    return name.replace("_", "").lower()


def _described(described: Any, position: int) -> tuple[str, Any]:
    """Name and arguments of a layer as it was written."""
    if isinstance(described, str):
        return described, None
    if isinstance(described, Mapping) and len(described) == 1:
        name, arguments = next(iter(described.items()))
        return str(name), arguments
    raise UserError(
        f"model.layers[{position}]={_shown(described)}: expected a name like relu, or one with its arguments like "
        "{linear: 20}"
    )


def _kind(name: str, position: int) -> type[nn.Module]:
    classes = layer_classes()
    if _short(name) not in classes:
        near = suggest(_short(name), classes)
        raise UserError(f"model.layers[{position}]={name}: torch.nn has no layer of that name. {near}")
    return classes[_short(name)]


def _made(kind: type[nn.Module], arguments: Any, x: Tensor, where: str) -> nn.Module:
    """A layer with its arguments; how many inputs it has follows from ``x``, what comes before it."""
    given = dict(arguments) if isinstance(arguments, Mapping) else {}
    names = list(inspect.signature(kind).parameters)
    for name, axis in _SIZES.items():
        if name in names and name not in given:
            given[name] = x.shape[axis if x.dim() > 1 else 0]
    if arguments is not None and not isinstance(arguments, Mapping):
        values = (
            list(arguments)
            if isinstance(arguments, Sequence) and not isinstance(arguments, str)
            else [arguments]
        )
        free = [name for name in names if name not in given]
        if len(values) > len(free):
            raise UserError(f"{where}: {kind.__name__} takes {', '.join(free) or 'no arguments'}")
        given |= dict(zip(free, values, strict=False))
    if unknown := [name for name in given if name not in names]:
        raise UserError(f"{where}: {kind.__name__} has no {unknown[0]}. {suggest(str(unknown[0]), names)}")
    try:
        return kind(**given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where}: torch.nn.{kind.__name__} refused its settings: {reason_of(error)}"
        ) from None


def _through(layer: nn.Module, x: Tensor, where: str) -> Tensor:
    """What a layer makes of ``x``.

    Raises:
        UserError: It does not take it.
    """
    try:
        with torch.no_grad():
            answer = layer(x)
    except Exception as error:
        raise UserError(
            f"{where}: the layer does not take what comes before it, samples of the shape {tuple(x.shape[1:])}: "
            f"{reason_of(error)}"
        ) from None
    for part in layer.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
    if not isinstance(answer, Tensor):
        raise UserError(
            f"{where}: the layer gives a {type(answer).__name__}; expected one tensor, a row a sample"
        )
    return answer


def _shown(described: Any) -> str:
    if isinstance(described, Mapping):
        return "{" + ", ".join(f"{name}: {value}" for name, value in described.items()) + "}"
    return str(described)
