"""A linear model: one weight for each input and output."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.models.base import BaseModule
from pipeline.models.layers import output_layer
from pipeline.models.mlp import flat_inputs


class Linear(BaseModule):
    """Logits (or regression values) as a weighted sum of the inputs.

    Args:
        spec: Description of the data; images are flattened.
        dropout: Share of the inputs set to 0 in training.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    uses_weights_once = True

    def __init__(self, spec: Spec | dict[str, Any], dropout: float = 0.0, **shared: Any) -> None:
        super().__init__(spec, **shared)
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(flat_inputs(self.spec, "linear"), self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(self.normalised(x).flatten(1)))
        return logits
