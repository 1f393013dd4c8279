"""Names of activations, and the widths of hidden layers as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

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
