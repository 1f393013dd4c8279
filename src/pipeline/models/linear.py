"""A linear model: one weight for each input and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.layers import output_layer
from pipeline.models.mlp import flat_inputs
from pipeline.settings import BELOW_ONE, Number, Word


class Linear(BaseModule):
    """Logits (or regression values) as a weighted sum of the inputs; of words, as the sum of one weight for each.

    Args:
        spec: Description of the data; images are flattened, the order of tokens does not count.
        dropout: Share of the inputs set to 0 in training.
        solver: ``gradient`` (trained in steps, as every network) or ``exact`` (the minimum of squared error or
            cross-entropy plus a penalty, by scikit-learn's Ridge and LogisticRegression).
        alpha: Weight of the squared weights beside the sum of the samples' losses (``1 / C`` in scikit-learn's
            words); ``auto`` is the value from a hundredth to ten thousand that is best on validation data, 1 where
            there is none.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    uses_weights_once = True
    at_once: ClassVar[Mapping[str, Any] | None] = {"solver": "exact"}

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        dropout: Annotated[float, BELOW_ONE] = 0.0,
        solver: Annotated[str, Word(("gradient", "exact"))] = "gradient",
        alpha: Annotated[float | str, Number(0, words=("auto",))] = "auto",
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        self.solver, self.alpha = solver, alpha
        self.dropout = nn.Dropout(dropout)
        if self.of_words:
            # A row as wide as a large vocabulary would be nothing but zeros: the weights of the words that occur are
            # looked up and summed instead.
            self.words = nn.Embedding(self.spec.vocabulary, self.spec.outputs, padding_idx=0)
            nn.init.zeros_(self.words.weight)
            self.bias = nn.Parameter(torch.zeros(self.spec.outputs))
        else:
            self.output = output_layer(flat_inputs(self.spec, "linear"), self.spec)
        self.initialise()

    @classmethod
    def from_data(cls, train: Rows, encoder: Encoder, settings: dict[str, Any]) -> dict[str, Any]:
        weighed = getattr(encoder, "wide", False) and getattr(encoder, "weights", None) is not None
        if weighed and settings.get("solver", "gradient") != "exact":
            raise UserError(
                "data.weights=nb with so large a vocabulary needs model.solver=exact; set it, or leave one of them out"
            )
        return {}

    @property
    def of_words(self) -> bool:
        """Whether the input is the ids of words, one prediction a text."""
        return self.spec.input == "tokens" and not self.spec.per_step

    @classmethod
    def kept(
        cls, settings: Mapping[str, Any], facts: Mapping[str, Any], rounds: int | None
    ) -> dict[str, Any] | None:
        return {"alpha": facts["alpha"]} if settings.get("solver") == "exact" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.of_words:
            there = (x != 0).to(self.bias.dtype).unsqueeze(-1)
            summed: Tensor = (self.dropout(self.words(x)) * there).sum(1) + self.bias
            return summed
        logits: Tensor = self.output(self.dropout(self.normalised(x).flatten(1)))
        return logits
