"""A network's layers with the shape of what each gives and the number of its parameters, as a compact table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST_ROWS = 24
"""A network of more layers is shown by the blocks that it is made of."""


@dataclass(frozen=True)
class Layer:
    """One row of the table.

    Args:
        name: Name in the network, dotted.
        kind: Name of its class.
        shape: Shape of its output without the samples' axis; None where it was not called.
        parameters: Number of its parameters, those of its parts included.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int


def layers_of(model: nn.Module, x: Tensor) -> list[Layer]:
    """The layers of a network in the order in which they are called, those that are not called last.

    Args:
        model: The network. It is run once in evaluation mode, without a gradient: nothing in it changes.
        x: Some samples, (samples, …).
    """
    modules = {name: module for name, module in model.named_modules() if name}
    chosen = _chosen(modules)
    called: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor):
            called.setdefault(name, tuple(first.shape[1:]))

    handles = [
        modules[name].register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name in chosen
    ]
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, was in training.items():
            module.training = was
    order = [*called, *(name for name in chosen if name not in called)]
    rows = [
        Layer(name, type(modules[name]).__name__, called.get(name), _count(modules[name])) for name in order
    ]
    own = _count(model) - sum(row.parameters for row in rows)
    # Parameters that stand beside the layers, and those that several of them share.
    return [*rows, Layer("(beside them)", "Parameter", None, own)] if own > 0 else rows


def table_of(model: nn.Module, x: Tensor) -> str:
    """:func:`layers_of` as lines of text, with the whole number of parameters below."""
    rows = layers_of(model, x)
    cells = [("layer", "kind", "output", "parameters")]
    cells += [(row.name, row.kind, _shape(row.shape), f"{row.parameters:,}") for row in rows]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = _count(model)
    fixed = f", of which {every - trained:,} are fixed" if every > trained else ""
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {count:>{widths[3]}}"
        for name, kind, shape, count in cells
    ]
    return "\n".join([*lines, f"{every:,} parameters{fixed} (n: samples)"])


def _chosen(modules: dict[str, nn.Module]) -> list[str]:
    """Names of the modules that are rows: the deepest level at which the table is short."""
    deepest = max((name.count(".") for name in modules), default=0)
    names: list[str] = []
    for depth in range(deepest, -1, -1):
        names = [
            name
            for name, module in modules.items()
            if name.count(".") == depth or (name.count(".") < depth and not list(module.children()))
        ]
        if len(names) <= MOST_ROWS:
            break
    return names


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else " × ".join(["n", *map(str, shape)])
