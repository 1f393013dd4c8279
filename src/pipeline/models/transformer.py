"""A Transformer for sequences: characters, words, series and the rows of an image."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule, State
from pipeline.models.layers import needs_steps, output_layer
from pipeline.settings import BELOW_ONE, Number


class Transformer(BaseModule):
    """Blocks of attention and of a perceptron at each step (Vaswani et al. 2017), normalised before each (Xiong 2020).

    Where there is a target for every step, a step sees itself and the ``context`` steps before it, never what follows;
    what it sees of an earlier piece of the same text is remembered, not learnt from (Transformer-XL, Dai et al. 2019).
    Where there is one target a sample, every step sees all others, and their mean is what the output is read from. A
    step's place is a rotation of its queries and keys (Su et al. 2021), so that what counts is how far apart two are.

    Args:
        spec: Description of the data: tokens, series or images, whose rows are the steps.
        hidden_units: Width of each step's vector.
        layers: Number of blocks.
        heads: Number of parts that attention is split into; ``hidden_units`` is a multiple of twice as many.
        context: Number of steps that a step looks back on, where there is a target for every step.
        dropout: Share of embeddings, attention and outputs of each part set to 0 in training.
        **shared: Settings that every model takes, see :class:`BaseModule`.

    Raises:
        UserError: The data is no sequence, or the width cannot be split into so many heads.
    """

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        hidden_units: Annotated[int, Number(1, whole=True)] = 128,
        layers: Annotated[int, Number(1, whole=True)] = 2,
        heads: Annotated[int, Number(1, whole=True)] = 4,
        context: Annotated[int, Number(1, whole=True)] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        needs_steps(self.spec, "transformer")
        if hidden_units % (2 * heads):
            raise UserError(
                f"model.hidden_units={hidden_units}: expected a multiple of {2 * heads}, since model.heads={heads}"
            )
        self.context = context
        self.embedding: nn.Module
        if self.spec.input == "tokens":
            self.embedding = nn.Embedding(self.spec.vocabulary, hidden_units, padding_idx=0)
        else:
            shape = self.spec.input_shape
            size = shape[0] * shape[2] if self.spec.input == "image" else shape[-1]
            self.embedding = nn.Linear(size, hidden_units)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(hidden_units, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_units)
        self.output = output_layer(hidden_units, self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        return self._each_step(x, None)[0] if self.spec.per_step else self._as_a_whole(x)

    def forward_state(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.spec.per_step:
            return self._as_a_whole(x), None
        logits, kept = self._each_step(x, state)
        return logits, torch.stack([both[:, -self.context :] for both in kept])

    def _each_step(self, x: Tensor, state: State) -> tuple[Tensor, list[Tensor]]:
        """The outputs of every step, and each block's keys and values of all steps, the remembered ones first."""
        steps = self.dropout(self.embedding(self._steps(x)))
        seen = self._seen(steps.shape[1], 0 if state is None else state.shape[2], x.device)
        kept: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            steps, both = block(steps, seen, None if state is None else state[layer])
            kept.append(both)
        return self.output(self.norm(steps)), kept

    def _as_a_whole(self, x: Tensor) -> Tensor:
        """One output a sample."""
        steps = self.dropout(self.embedding(self._steps(x)))
        there = x != 0 if self.spec.input == "tokens" else None
        if there is not None:
            # A text without a known word: its first padding stands for it, or there would be nothing to look at.
            there = there | (torch.arange(x.shape[1], device=x.device) == 0)
        for block in self.blocks:
            steps, _ = block(steps, None if there is None else there[:, None, None, :], None)
        steps = self.norm(steps)
        if there is None:
            whole: Tensor = self.output(steps.mean(1))
            return whole
        weights = there[..., None].to(steps.dtype)
        known: Tensor = self.output((steps * weights).sum(1) / weights.sum(1))
        return known

    def _steps(self, x: Tensor) -> Tensor:
        """Token ids as they are; everything else as float (samples, steps, features)."""
        if self.spec.input == "tokens":
            return x
        if self.spec.input == "image":
            return self.normalised(x).transpose(1, 2).flatten(2)
        return x.float()

    def _seen(self, steps: int, before: int, device: torch.device) -> Tensor:
        """Which of the remembered and the present steps each present one looks at, (steps, before + steps)."""
        here = torch.arange(before, before + steps, device=device)[:, None]
        there = torch.arange(before + steps, device=device)[None]
        return (there <= here) & (there > here - self.context - 1)


class Block(nn.Module):
    """Attention over the steps, then a perceptron at each, both added to what came in.

    Args:
        width: Width of a step's vector.
        heads: Number of parts that attention is split into.
        dropout: Share of what is set to 0 in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.left_out = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """The steps' new vectors, and the keys and values of all steps, those of ``memory`` first.

        Args:
            x: Vectors, (samples, steps, width).
            seen: Which steps each one looks at, (…, steps, remembered + steps); None for all.
            memory: Keys and values of earlier steps, (samples, remembered, 2 · width).
        """
        queries, now = self.queries_keys_values(self.before_attention(x)).tensor_split([x.shape[-1]], -1)
        both = now if memory is None else torch.cat([memory.to(now.dtype), now], 1)
        keys, values = both.chunk(2, -1)
        first = keys.shape[1] - queries.shape[1]
        found = F.scaled_dot_product_attention(
            rotated(self._split(queries), first),
            rotated(self._split(keys), 0),
            self._split(values),
            attn_mask=seen,
            dropout_p=self.dropout if self.training else 0.0,
        )
        x = x + self.left_out(self.attended(found.transpose(1, 2).flatten(2)))
        return x + self.left_out(self.perceptron(self.before_perceptron(x))), both

    def _split(self, x: Tensor) -> Tensor:
        """(samples, steps, width) as (samples, heads, steps, width of a head)."""
        parts: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return parts


def rotated(x: Tensor, first: int) -> Tensor:
    """Vectors turned by angles that grow with their place (rotary position embedding, Su et al. 2021).

    The product of two turned vectors depends on how far apart they are, not on where they are.

    Args:
        x: Queries or keys, (samples, heads, steps, an even width).
        first: Place of the first step.
    """
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)
