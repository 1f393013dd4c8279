"""Recurrent models: RNN, GRU and LSTM, many-to-one and many-to-many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule, State
from pipeline.models.layers import needs_steps, output_layer
from pipeline.settings import BELOW_ONE, COUNT, COUNT_OR_NULL, PATH_OR_NULL, Flag, Number

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(BaseModule):
    """A recurrent layer over the steps of a sequence, and a linear output on the last step or on every step.

    Tokens are embedded, or one-hot where ``embedding`` is null; the rows of an image are its steps.

    Args:
        spec: Description of the data: tokens, series or images.
        cell: ``rnn``, ``gru`` or ``lstm``.
        hidden_units: Width of the recurrent state.
        layers: Number of recurrent layers on top of each other.
        embedding: Width of a learnt embedding of the tokens, None for one-hot.
        dropout: Share of the recurrent outputs set to 0 in training (between layers and before the output).
        pack: Whether to skip the padding in training (faster where lengths differ); the results are the same.
        vectors: Name or file of word vectors that the embedding begins with, see :mod:`pipeline.data.text.vectors`;
            None for random ones. ``embedding`` is their length then.
        bidirectional: Whether a second layer reads the sequence from its end; its units stand beside the others.
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        cell: str = "lstm",
        hidden_units: Annotated[int, Number(1, whole=True, many=True, null=True)] = 128,
        layers: Annotated[int, COUNT] = 1,
        embedding: Annotated[int | None, COUNT_OR_NULL] = None,
        dropout: Annotated[float, BELOW_ONE] = 0.0,
        pack: bool = False,
        bidirectional: Annotated[bool, Flag()] = False,
        vectors: Annotated[str | None, PATH_OR_NULL] = None,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if cell not in CELLS:
            raise UserError(f"unknown model.cell {cell!r}; expected one of {sorted(CELLS)}")
        needs_steps(self.spec, cell)
        if bidirectional and self.spec.per_step:
            self._refuse_the_future()
        self.pack, self.bidirectional, self.vectors = pack, bidirectional, vectors
        self.embedding: nn.Embedding | None = None
        if self.spec.input == "tokens":
            size = embedding or self.spec.vocabulary
            if embedding:
                self.embedding = nn.Embedding(self.spec.vocabulary, embedding, padding_idx=0)
        elif self.spec.input == "image":
            size = self.spec.input_shape[0] * self.spec.input_shape[2]
        else:
            size = self.spec.input_shape[-1]
        between = dropout if layers > 1 else 0.0
        self.recurrent = CELLS[cell](
            size,
            hidden_units,
            num_layers=layers,
            dropout=between,
            batch_first=True,
            bidirectional=bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(hidden_units * (2 if bidirectional else 1), self.spec)
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_state(x, None)[0]

    def forward_state(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = self._steps(x)
        if self.spec.per_step:
            outputs, state = self.recurrent(steps, state)
            return self.output(self.dropout(outputs)), state
        if self.spec.input != "tokens":
            outputs, state = self.recurrent(steps, state)
            return self.output(self.dropout(self._ends(outputs))), state
        lengths = (x != 0).sum(1).clamp(min=1)
        last = (
            self._packed_last(steps, lengths)
            # Read from its end, a padded text would begin with the padding.
            if self.bidirectional or (self.pack and self.training)
            else self._gathered_last(steps, lengths)
        )
        return self.output(self.dropout(last)), None

    def hidden_states(self, x: Tensor) -> Tensor:
        """What the last recurrent layer holds after each step, (samples, steps, units)."""
        states: Tensor = self.recurrent(self._steps(x))[0]
        return states

    def _refuse_the_future(self) -> None:
        if self.spec.input == "tokens":
            raise UserError(
                "model.bidirectional=true reads a text from its end too, and would see the characters that it is to "
                "predict: leave it out to predict what comes next"
            )
        if self.spec.stateful:
            raise UserError(
                "model.bidirectional=true reads a piece from its end too, so that its state cannot be carried to the "
                "next one: set data.stateful=false, or leave it out"
            )

    def _ends(self, outputs: Tensor) -> Tensor:
        """Where each direction has read everything: the last step, and for the one from the end the first."""
        if not self.bidirectional:
            return outputs[:, -1]
        width = self.recurrent.hidden_size
        return torch.cat([outputs[:, -1, :width], outputs[:, 0, width:]], -1)

    def _steps(self, x: Tensor) -> Tensor:
        """The input as float (samples, steps, features)."""
        if self.spec.input == "tokens":
            if self.embedding is not None:
                embedded: Tensor = self.embedding(x)
                return embedded
            return F.one_hot(x, self.spec.vocabulary).to(self.output.weight.dtype)
        if self.spec.input == "image":
            return self.normalised(x).transpose(1, 2).flatten(2)
        return x.float()

    def _gathered_last(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """The output at each sequence's last step; what comes after it is padding, which cannot reach back."""
        outputs, _ = self.recurrent(steps)
        index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, outputs.shape[2])
        last: Tensor = outputs.gather(1, index)[:, 0]
        return last

    def _packed_last(self, steps: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            steps, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.recurrent(packed)
        hidden: Tensor = state[0] if isinstance(state, tuple) else state
        return torch.cat([hidden[-2], hidden[-1]], -1) if self.bidirectional else hidden[-1]
