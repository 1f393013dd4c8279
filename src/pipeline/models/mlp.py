"""A multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.layers import BatchNorm1d, output_layer, widths
from pipeline.models.layers import activation as make_activation
from pipeline.settings import BELOW_ONE, COUNT_OR_NULL, Flag, Number, Text


class MLP(BaseModule):
    """Fully connected hidden layers, each with activation, and normalisation and dropout if asked for.

    Args:
        spec: Description of the data; images are flattened.
        hidden_units: Width of each hidden layer, or one width for ``layers`` layers.
        layers: Number of hidden layers where ``hidden_units`` is one number.
        dropout: Share of each hidden layer's outputs set to 0 in training.
        activation: Name of the activation.
        batch_norm: Whether to normalise each hidden layer over the batch.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    uses_weights_once = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        hidden_units: Annotated[int | Sequence[int], Number(1, whole=True, many=True, null=True)] = (64, 64),
        layers: Annotated[int | None, COUNT_OR_NULL] = None,
        dropout: Annotated[float, BELOW_ONE] = 0.0,
        activation: Annotated[str, Text("the name of an activation, like relu")] = "relu",
        batch_norm: Annotated[bool, Flag()] = False,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        blocks: list[nn.Module] = []
        size = flat_inputs(self.spec, "mlp")
        for width in widths(hidden_units, layers):
            blocks.append(nn.Linear(size, width))
            if batch_norm:
                blocks.append(BatchNorm1d(width))
            blocks.append(make_activation(activation))
            if dropout:
                blocks.append(nn.Dropout(dropout))
            size = width
        self.hidden = nn.Sequential(*blocks)
        self.output = output_layer(size, self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.hidden(self.normalised(x).flatten(1)))
        return logits


def flat_inputs(spec: Spec, model: str) -> int:
    """Number of inputs of a flattened sample.

    Raises:
        UserError: The samples have no fixed size.
    """
    if spec.input == "tokens" or spec.per_step or 0 in spec.input_shape:
        raise UserError(
            f"model={model} needs samples of a fixed size, but this data gives sequences ({spec.input}); "
            "use model=lstm, model=gru or model=rnn"
        )
    return math.prod(spec.input_shape)
