"""Names of activations, and the widths of hidden layers as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """The activation called ``name``.

    Raises:
        UserError: There is no activation of that name.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}; expected one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def widths(hidden_units: int | Sequence[int], layers: int | None) -> list[int]:
    """Width of each hidden layer: a list as it stands, or one width for ``layers`` layers (1 by default)."""
    if isinstance(hidden_units, int):
        return [hidden_units] * (1 if layers is None else layers)
    if layers is not None and layers != len(hidden_units):
        raise UserError(
            f"model.layers={layers} but model.hidden_units={list(hidden_units)} names {len(hidden_units)} layers; "
            "give one width (model.hidden_units=64) or drop model.layers"
        )
    return list(hidden_units)


def _normalised(layer: nn.BatchNorm1d | nn.BatchNorm2d, input: Tensor) -> Tensor | None:
    """The output for a batch of a single value per channel, as in evaluation; None for any other batch.

    It has no statistics of its own, and PyTorch refuses it: a last batch of one sample would end the run.
    """
    if not layer.training or input.numel() != input.shape[1]:
        return None
    return F.batch_norm(input, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of vectors, which takes a batch of one sample too."""

    def forward(self, input: Tensor) -> Tensor:
        single = _normalised(self, input)
        return super().forward(input) if single is None else single


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of images, which takes a batch of one sample too."""

    def forward(self, input: Tensor) -> Tensor:
        single = _normalised(self, input)
        return super().forward(input) if single is None else single


class Standardised(nn.Linear):
    """A last layer whose outputs are in the target's own units, whatever its size: weights stay near 1.

    Args:
        inputs: Width of the layer before.
        spec: Description of the data, with the mean and standard deviation of the target.
    """

    def __init__(self, inputs: int, spec: Spec) -> None:
        super().__init__(inputs, spec.outputs)
        self.mean, self.std = spec.target_mean, spec.target_std

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.std + self.mean


def needs_steps(spec: Spec, model: str) -> None:
    """Refuse data whose samples are no sequences, nor images that are read row by row.

    Args:
        spec: Description of the data.
        model: Name of the model, as it is typed.

    Raises:
        UserError: The samples have no order.
    """
    if spec.input == "bag" or spec.unordered:
        # A text has an order, as long as it is not made a bag of words.
        raise UserError(
            f"model={model} reads words in their order, but this data gives none; set data.input=tokens"
        )
    if spec.input == "vector":
        raise UserError(f"model={model} needs sequences or images, but this data gives vector; use model=mlp")


def output_layer(inputs: int, spec: Spec) -> nn.Linear:
    """The last layer of a model: logits, or a regression target in its own units."""
    if spec.horizon or (spec.target_std == 1.0 and spec.target_mean == 0.0):
        return nn.Linear(inputs, spec.outputs)
    return Standardised(inputs, spec)
