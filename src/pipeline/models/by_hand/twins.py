"""Networks whose weights are learnt by hand; they are saved, asked and compared like those they are named after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.by_hand.character_rnn import CharacterRNN
from pipeline.models.by_hand.neurons import Neuron, ReluNeurons
from pipeline.models.linear import Linear
from pipeline.models.mlp import MLP
from pipeline.models.recurrent import Recurrent

RNN_NAMES = {
    "Wxh": "recurrent.weight_ih_l0",
    "Whh": "recurrent.weight_hh_l0",
    "bxh": "recurrent.bias_ih_l0",
    "bhh": "recurrent.bias_hh_l0",
    "Why": "output.weight",
    "by": "output.bias",
}
"""What the values of the RNN by hand are called in PyTorch's layers."""


class LinearByHand(Linear):
    """One linear neuron in plain Python, :class:`Neuron`. Its settings are those of :class:`Linear`."""

    at_once: ClassVar[Mapping[str, Any] | None] = {}

    def initialise(self) -> None:
        super().initialise()
        _check_point(self)
        _check(self, self.dropout.p == 0, "model.dropout", "0")
        _check(self, self.solver == "gradient", "model.solver", "gradient")

    def reference(self) -> Neuron:
        """The neuron by hand with these weights."""
        values = _values(self)
        return Neuron(float(values["output.weight"][0, 0]), float(values["output.bias"][0]))

    def hold(self, reference: Neuron) -> None:
        """Take over the weights of the neuron by hand."""
        _hold(self, {"output.weight": [[reference.weight]], "output.bias": [reference.bias]})


class MLPByHand(MLP):
    """One hidden layer of ReLU units in plain Python, :class:`ReluNeurons`. Its settings are those of :class:`MLP`."""

    at_once: ClassVar[Mapping[str, Any] | None] = {}

    def initialise(self) -> None:
        super().initialise()
        _check_point(self)
        kinds = [type(layer).__name__ for layer in self.hidden]
        _check(self, kinds == ["Linear", "ReLU"], "model", "one hidden layer of relu, nothing else")

    def reference(self) -> ReluNeurons:
        """The units by hand with these weights."""
        values = _values(self)
        return ReluNeurons(
            values["hidden.0.weight"][:, 0].tolist(),
            values["hidden.0.bias"].tolist(),
            values["output.weight"][0].tolist(),
            float(values["output.bias"][0]),
        )

    def hold(self, reference: ReluNeurons) -> None:
        """Take over the weights of the units by hand."""
        _hold(
            self,
            {
                "hidden.0.weight": [[weight] for weight in reference.weights],
                "hidden.0.bias": reference.biases,
                "output.weight": [reference.outputs],
                "output.bias": [reference.bias],
            },
        )


class RNNByHand(Recurrent):
    """A character RNN in NumPy, :class:`CharacterRNN`. Its settings are those of :class:`Recurrent`."""

    at_once: ClassVar[Mapping[str, Any] | None] = {}

    def initialise(self) -> None:
        super().initialise()
        spec, layer = self.spec, self.recurrent
        characters = spec.per_step and spec.input == "tokens" and spec.task == "multiclass"
        _check(self, characters, "data", "a text to go on with (data=kafka, data=text_file)")
        plain = isinstance(layer, torch.nn.RNN) and layer.num_layers == 1 and self.dropout.p == 0
        _check(
            self, plain and self.embedding is None, "model", "one layer, cell=rnn, no dropout, no embedding"
        )
        _check_loss(self, ("auto",))

    def reference(self) -> CharacterRNN:
        """The RNN by hand with these weights."""
        values = _values(self)
        return CharacterRNN({name: values[theirs] for name, theirs in RNN_NAMES.items()})

    def hold(self, reference: CharacterRNN) -> None:
        """Take over the weights of the RNN by hand."""
        _hold(self, {theirs: reference.weights[name] for name, theirs in RNN_NAMES.items()})


ByHand = LinearByHand | MLPByHand | RNNByHand


def _values(model: BaseModule) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The parameters by name in double precision; what ``start`` sets is as exact as it was written."""
    found = {name: parameter.detach().cpu().double().numpy() for name, parameter in model.named_parameters()}
    return found | {
        name: np.array(value, dtype=np.float64)
        for name, value in (model.start or {}).items()
        if np.array_equal(np.array(value, dtype=np.float32), found[name].astype(np.float32))
    }


def _hold(model: BaseModule, values: dict[str, Any]) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(torch.tensor(np.asarray(value, dtype=np.float64)))


def _check_point(model: BaseModule) -> None:
    spec = model.spec
    point = spec.task == "regression" and spec.input_shape == (1,) and spec.outputs == 1
    _check(model, point and spec.target_std == 1.0, "data", "single numbers from single numbers (data=line)")
    _check_loss(model, ("auto", "squared"))


def _check_loss(model: BaseModule, losses: tuple[str, ...]) -> None:
    objective = model.objective
    _check(model, objective.loss_name in losses, "model.loss", " or ".join(losses))
    _check(model, not objective.l1 and not objective.l2, "model.l1 and model.l2", "0")


def _check(model: BaseModule, holds: bool, key: str, expected: str) -> None:
    if not holds:
        raise UserError(
            f"{key}: {type(model).__name__} learns by hand what is written out there: expected {expected}"
        )
