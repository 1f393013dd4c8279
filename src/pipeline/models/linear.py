"""A linear model: one weight for each input and output."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.models.base import BaseModule
from pipeline.models.layers import output_layer
from pipeline.models.mlp import flat_inputs
from pipeline.settings import Number, Word


class Linear(BaseModule):
    """Logits (or regression values) as a weighted sum of the inputs.

    Args:
        spec: Description of the data; images are flattened.
        dropout: Share of the inputs set to 0 in training.
        solver: ``gradient`` (trained in steps, as every network) or ``exact`` (the minimum of squared error or
            cross-entropy plus a penalty, by scikit-learn's Ridge and LogisticRegression).
        alpha: Weight of the squared weights beside the sum of the samples' losses (``1 / C`` in scikit-learn's
            words); ``auto`` is the value from a hundredth to ten thousand that is best on validation data, 1 where
            there is none.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    uses_weights_once = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        dropout: float = 0.0,
        solver: Annotated[str, Word(("gradient", "exact"))] = "gradient",
        alpha: Annotated[float | str, Number(0, words=("auto",))] = "auto",
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        self.solver, self.alpha = solver, alpha
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(flat_inputs(self.spec, "linear"), self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(self.normalised(x).flatten(1)))
        return logits
