"""Names of activations, and the widths of hidden layers as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.spec import Spec
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
        UserError: there is none of that name.
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


class _BatchNorm:
    """Batch normalisation that a batch of a single value per channel goes through as in evaluation.

    It has no statistics of its own, and PyTorch refuses it: a last batch of one sample would end the run.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:  # type: ignore[attr-defined]
            return F.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                eps=self.eps,  # type: ignore[attr-defined]
            )
        return super().forward(input)  # type: ignore[misc,no-any-return]


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """For vectors, see above."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """For images, see above."""


class Standardised(nn.Linear):
    """A last layer whose outputs are in the target's own units, whatever its size: weights stay near 1.

    Args:
        inputs: width of the layer before.
        spec: the mean and standard deviation of the target.
    """

    def __init__(self, inputs: int, spec: Spec) -> None:
        super().__init__(inputs, spec.outputs)
        self.mean, self.std = spec.target_mean, spec.target_std

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.std + self.mean


def output_layer(inputs: int, spec: Spec) -> nn.Linear:
    """The last layer of a model: logits, or a regression target in its own units."""
    if spec.target_std == 1.0 and spec.target_mean == 0.0:
        return nn.Linear(inputs, spec.outputs)
    return Standardised(inputs, spec)
