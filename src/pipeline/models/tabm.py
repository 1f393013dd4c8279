"""TabM: many networks for tables that share their weights and are trained at once.

Source: Gorishniy, Kotelnikov and Babenko 2024, "TabM: Advancing tabular deep learning with parameter-efficient
ensembling" (https://arxiv.org/abs/2410.24210), with the embeddings of numbers of Gorishniy, Rubachev and Babenko 2022,
"On embeddings for numerical features in tabular deep learning" (https://arxiv.org/abs/2203.05556).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.settings import LOSS, NOT_NEGATIVE, Number

_ROWS = 50_000
"""Training rows at most that the bins' edges are read from: quantiles of more come to the same."""
_ROWS_OF_A_BIN = 40
"""Training rows that a bin holds at least, about: the slope within it is learnt from them alone."""
_LEAST_WIDTH = 1e-6
"""Narrowest bin, in the inputs' own scale: edges that float32 cannot tell apart are one."""


class TabM(BaseModule):
    """An ensemble of perceptrons for tables, whose members share their weight matrices (TabM, section 3.2).

    Numbers are encoded piecewise linearly between the quantiles of their training values (Gorishniy et al. 2022,
    equation 1), which scales them by their ranks, and are embedded; categories are embedded. All members take the same
    embedded row. In training each member answers and is judged for itself; what the model answers is the mean of their
    probabilities, or of their numbers.

    Args:
        spec: Description of the data: ``vector`` inputs with one target a sample.
        members: Number of networks (k in the paper).
        hidden_units: Width of the hidden layers.
        layers: Number of hidden layers.
        dropout: Share of each hidden layer's outputs set to 0 in training.
        bins: Most bins of a number's piecewise-linear encoding, fewer where one would hold fewer than 40 training rows.
            0 takes numbers as they are.
        embedding: Width of the embedding of a number; categories with more values than that are embedded in it too.
        learnt: What :meth:`from_data` found: ``categories`` (first input and end of each one-hot block) and ``edges``
            (of each other input, the edges of its bins; empty for an input that is taken as it is). A saved model
            brings it along.
        loss: Name of the loss, see :class:`Objective`.
        l1: Weight of the sum of absolute weights in the training loss.
        l2: Weight of the sum of squared weights in the training loss.

    Raises:
        UserError: The data is no table.
    """

    uses_weights_once = True
    several_where_few = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        members: Annotated[int, Number(1, whole=True)] = 8,
        hidden_units: Annotated[int, Number(1, whole=True)] = 128,
        layers: Annotated[int, Number(1, whole=True)] = 2,
        dropout: Annotated[float, Number(0, 1, below=True)] = 0.1,
        bins: Annotated[int, Number(0, whole=True)] = 32,
        embedding: Annotated[int, Number(1, whole=True)] = 12,
        learnt: dict[str, Any] | None = None,
        loss: Annotated[str, LOSS] = "auto",
        l1: Annotated[float, NOT_NEGATIVE] = 0.0,
        l2: Annotated[float, NOT_NEGATIVE] = 0.0,
    ) -> None:
        super().__init__(spec, loss, l1, l2)
        if self.spec.per_step or self.spec.input != "vector":
            raise UserError(
                f"model=tabm is for the rows of a table; this data is {self.spec.input}"
                f"{' with a target for each step' if self.spec.per_step else ''}: use model=mlp, cnn or lstm"
            )
        self.members = members
        inputs = math.prod(self.spec.input_shape)
        learnt = learnt or {"categories": [], "edges": [[]] * inputs}
        self.embedded = RowEmbedding(inputs, learnt["categories"], learnt["edges"], embedding)
        chunks = self.embedded.chunks
        width = sum(chunks)
        blocks: list[nn.Module] = []
        for number in range(layers):
            blocks.append(SharedLinear(width, hidden_units, members, chunks if number == 0 else None))
            blocks += [nn.ReLU(), nn.Dropout(dropout)]
            width = hidden_units
        self.hidden = nn.Sequential(*blocks)
        self.output = SeparateLinear(width, self.spec.outputs, members)

    @classmethod
    def from_data(cls, train: Rows, encoder: Encoder, settings: dict[str, Any]) -> dict[str, Any]:
        """The categories among the inputs, and the edges of the numbers' bins: quantiles of training values."""
        bins = min(int(settings.get("bins", 32)), max(2, len(train) // _ROWS_OF_A_BIN))
        rows = torch.arange(len(train))
        if len(rows) > _ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, _ROWS).long()]
        x = train.take(rows)[0].flatten(1).numpy()
        categories = [[block.start, block.stop] for block in getattr(encoder, "blocks", list)()]
        inside = {place for start, stop in categories for place in range(start, stop)}
        edges = [
            [] if place in inside or not bins else quantile_edges(x[:, place], bins)
            for place in range(x.shape[1])
        ]
        return {"learnt": {"categories": categories, "edges": edges}}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, members, outputs) in training, of all members together (samples, outputs) otherwise."""
        row = self.embedded(x.float().flatten(1))
        # (members, samples, width): one batched product where members do not share a weight.
        each: Tensor = self.output(self.hidden(row.expand(self.members, *row.shape)))
        logits = each.transpose(0, 1) * self.spec.target_std + self.spec.target_mean
        return logits if self.training else self.joined(logits)

    def joined(self, logits: Tensor) -> Tensor:
        """The members' answers as one: the logits of their mean probabilities, or the mean of their numbers."""
        if logits.dim() == 2:
            return logits
        if self.spec.task == "multiclass" and not self.objective.gives_probabilities:
            return logits.log_softmax(-1).logsumexp(1) - math.log(self.members)
        if self.spec.task in ("binary", "multilabel") and not self.objective.gives_probabilities:
            yes, no = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
            return yes.logsumexp(1) - no.logsumexp(1)
        return logits.mean(1)


class SharedLinear(nn.Linear):
    """A linear layer that members share but for a scale of each input and output, and the bias (TabM, equation 2).

    Args:
        inputs: Width of the layer before.
        outputs: Width of this layer.
        members: Number of members.
        chunks: Of the first layer, the widths of what columns were embedded in: a member's input scales begin with a
            random number for each column, so that members differ from the start. None for the other layers, whose
            scales begin with ones (section 3.3).
    """

    def __init__(self, inputs: int, outputs: int, members: int, chunks: Sequence[int] | None) -> None:
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(self.bias.detach().expand(members, 1, outputs).clone())
        scale = torch.ones(members, 1, inputs)
        if chunks is not None:
            scale = torch.randn(members, 1, len(chunks)).repeat_interleave(torch.tensor(chunks), dim=2)
        self.input_scale = nn.Parameter(scale)
        self.output_scale = nn.Parameter(torch.ones(members, 1, outputs))

    def forward(self, input: Tensor) -> Tensor:
        """(members, samples, inputs) to (members, samples, outputs)."""
        product = nn.functional.linear(input * self.input_scale, self.weight)
        return torch.addcmul(self.bias, product, self.output_scale)


class SeparateLinear(nn.Module):
    """The last layer: a linear layer for each member (TabM, section 3.2).

    Args:
        inputs: Width of the layer before.
        outputs: Number of outputs.
        members: Number of members.
    """

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        super().__init__()
        reach = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-reach, reach))

    def forward(self, input: Tensor) -> Tensor:
        """(members, samples, inputs) to (members, samples, outputs)."""
        return torch.baddbmm(self.bias, input, self.weight)


class RowEmbedding(nn.Module):
    """A table's encoded row as the numbers that a network learns from.

    A number becomes ``W e(x) + v x + b``, where ``e`` is its piecewise-linear encoding: 1 for the bins below x, 0 for
    those above, and how far x has come in its own (Gorishniy et al. 2022, equation 1). The first and the last bin go on
    beyond the training values, so that larger numbers stay larger. W begins with zeros: the network is first linear in
    its inputs, and bends as it learns. A category becomes its row of a matrix.

    Args:
        inputs: Number of inputs.
        categories: First input and end of each one-hot block.
        edges: Edges of each input's bins, ascending; fewer than two leave an input as it is.
        embedding: Width of an embedding.

    Attributes:
        chunks: Width of what each column became, in order; their sum is the width of the embedded row.
    """

    low: Tensor
    scale: Tensor
    floor: Tensor
    ceiling: Tensor

    def __init__(
        self,
        inputs: int,
        categories: Sequence[Sequence[int]],
        edges: Sequence[Sequence[float]],
        embedding: int,
    ) -> None:
        super().__init__()
        self.categories = [(start, stop) for start, stop in categories if stop - start > embedding]
        embedded = {place for start, stop in self.categories for place in range(start, stop)}
        self.numbers = [place for place in range(inputs) if len(edges[place]) > 1]
        self.plain = [place for place in range(inputs) if place not in {*embedded, *self.numbers}]
        if self.numbers:
            self._make_numbers([edges[place] for place in self.numbers], embedding)
        self.tables = nn.ModuleList(
            nn.Linear(stop - start, embedding, bias=False) for start, stop in self.categories
        )
        for weight in self.tables.parameters():
            # As rows of an embedding, of which a sample meets one.
            nn.init.normal_(weight, std=embedding**-0.5)
        self.chunks = [1] * len(self.plain) + [embedding] * (len(self.numbers) + len(self.categories))

    def _make_numbers(self, edges: Sequence[Sequence[float]], embedding: int) -> None:
        most = max(map(len, edges)) - 1
        shape = (len(edges), most)
        low, scale = torch.zeros(shape), torch.zeros(shape)
        # Bins that a number lacks are 0 for every value.
        floor, ceiling = torch.zeros(shape), torch.zeros(shape)
        for place, some in enumerate(edges):
            known = torch.tensor(some, dtype=torch.float64)
            count = len(some) - 1
            low[place, :count] = known[:-1].float()
            scale[place, :count] = (1 / known.diff()).float()
            ceiling[place, :count] = 1.0
            floor[place, 0], ceiling[place, count - 1] = -math.inf, math.inf
        for name, value in (("low", low), ("scale", scale), ("floor", floor), ("ceiling", ceiling)):
            # They follow from the hyperparameters.
            self.register_buffer(name, value, persistent=False)
        reach = embedding**-0.5
        self.slope = nn.Parameter(torch.empty(len(edges), 1, embedding).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(len(edges), 1, embedding).uniform_(-reach, reach))
        self.weight = nn.Parameter(torch.zeros(len(edges), most, embedding))

    def encoded(self, x: Tensor) -> Tensor:
        """The piecewise-linear encoding of all numbers, (samples, numbers, bins)."""
        values = (x[:, self.numbers].unsqueeze(-1) - self.low) * self.scale
        return torch.minimum(torch.maximum(values, self.floor), self.ceiling)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, inputs) to (samples, width)."""
        parts = [x[:, self.plain]] if self.plain else []
        if self.numbers:
            straight = torch.addcmul(self.bias, x[:, self.numbers].T.unsqueeze(-1), self.slope)
            # (numbers, samples, bins) times (numbers, bins, embedding).
            bent = torch.baddbmm(straight, self.encoded(x).transpose(0, 1), self.weight)
            parts.append(bent.transpose(0, 1).flatten(1))
        parts += [
            table(x[:, start:stop]) for table, (start, stop) in zip(self.tables, self.categories, strict=True)
        ]
        return torch.cat(parts, 1)


def quantile_edges(values: np.ndarray, bins: int) -> list[float]:
    """Edges of at most ``bins`` bins that hold about equally many of ``values``; none for two values or fewer.

    Where a few values are most of them, the bins hold about equally many of the different ones.

    Args:
        values: Training values of one number; NaN does not count.
        bins: Number of bins at most.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    different = np.unique(known)
    if len(different) <= 2:
        # A straight line says all that there is to say of two values.
        return []
    shares = np.linspace(0, 1, bins + 1)
    edges = different if len(different) <= bins else np.unique(np.quantile(known, shares))
    if len(edges) <= bins / 2 < len(different):
        # Where one value is most of them, its quantiles leave the others without an edge.
        edges = np.unique(np.quantile(different, shares))
    kept = [float(edges[0])]
    for edge in edges[1:]:
        if edge - kept[-1] > _LEAST_WIDTH * max(1.0, abs(float(edge))):
            kept.append(float(edge))
    return kept if len(kept) > 2 else []
