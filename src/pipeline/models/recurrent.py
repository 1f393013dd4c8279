"""Recurrent models: RNN, GRU and LSTM, many-to-one and many-to-many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule, State
from pipeline.models.layers import output_layer

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
        **shared: Settings that every model takes, see :class:`BaseModule`.
    """

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        cell: str = "lstm",
        hidden_units: int = 128,
        layers: int = 1,
        embedding: int | None = None,
        dropout: float = 0.0,
        pack: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        if cell not in CELLS:
            raise UserError(f"unknown model.cell {cell!r}; expected one of {sorted(CELLS)}")
        if self.spec.input in ("vector", "bag"):
            raise UserError(
                f"model={cell} needs sequences or images, but this data gives {self.spec.input}; use model=mlp"
            )
        self.pack = pack
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
        self.recurrent = CELLS[cell](size, hidden_units, num_layers=layers, dropout=between, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(hidden_units, self.spec)
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
            return self.output(self.dropout(outputs[:, -1])), state
        lengths = (x != 0).sum(1).clamp(min=1)
        last = (
            self._packed_last(steps, lengths)
            if self.pack and self.training
            else self._gathered_last(steps, lengths)
        )
        return self.output(self.dropout(last)), None

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
        return hidden[-1]
