"""The mean of the embeddings of words and hashed runs of words (Joulin et al. 2016)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.layers import output_layer
from pipeline.settings import BELOW_ONE, COUNT, PATH_OR_NULL, Number

_MULTIPLIER = 1_000_003
"""A prime: what runs hash to hardly depends on the number of buckets."""


class FastText(BaseModule):
    """A linear model on the mean of the embeddings of a text's words and of its runs of words.

    A run of words has no row of its own: it shares one of ``buckets`` with all runs that hash to the same number.

    Args:
        spec: Description of the data: texts as word ids, one class each.
        embedding: Width of the embeddings.
        ngrams: Longest run of words; 1 is words alone.
        buckets: Number of rows that runs share.
        dropout: Share of the mean embedding's values set to 0 in training.
        vectors: Name or file of word vectors that the words' embeddings begin with, see
            :mod:`pipeline.data.text.vectors`; None for random ones.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        embedding: Annotated[int, COUNT] = 16,
        ngrams: Annotated[int, Number(1, 5, whole=True)] = 2,
        buckets: Annotated[int, Number(1, whole=True)] = 200_000,
        dropout: Annotated[float, BELOW_ONE] = 0.0,
        vectors: Annotated[str | None, PATH_OR_NULL] = None,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if self.spec.input != "tokens" or self.spec.per_step or self.spec.unordered:
            raise UserError(
                "model=fasttext is for texts with a class each, as words in their order; set data.input=tokens"
            )
        self.ngrams, self.buckets, self.vectors = ngrams, buckets, vectors
        rows = self.spec.vocabulary + (buckets if ngrams > 1 else 0)
        self.embeddings = nn.EmbeddingBag(rows, embedding, mode="sum", padding_idx=0)
        nn.init.uniform_(self.embeddings.weight, -1 / embedding, 1 / embedding)
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(embedding, self.spec)
        self.initialise()
        with torch.no_grad():
            self.embeddings.weight[0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        ids = [x]
        run, there = x, x != 0
        for length in range(2, self.ngrams + 1):
            if x.shape[1] < length:
                break
            following = x[:, length - 1 :]
            run = run[:, :-1] * _MULTIPLIER + following
            # A run that reaches into the padding is none.
            there = there[:, :-1] & (following != 0)
            ids.append(torch.where(there, run.remainder(self.buckets) + self.spec.vocabulary, 0))
        known = torch.cat(ids, 1)
        count = (known != 0).sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.output(self.dropout(self.embeddings(known) / count))
        return logits
