"""What all models of this package share. A model is its constructor and ``forward``; how it is trained is elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from pipeline.data.core.encoder import Encoder
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.objective import Objective
from pipeline.models.settled import Settled
from pipeline.settings import LOSS, NOT_NEGATIVE, Text

State = Any
"""What a recurrent model carries from batch to batch: a tensor, a tuple of tensors, or None."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are learnt at one rate.

    Args:
        parameters: The parameters.
        rate: Share of the learning rate.
    """

    parameters: list[nn.Parameter]
    rate: float = 1.0


SHARED = ("loss", "l1", "l2", "initializer", "initializer_std", "start")
"""Settings that every model takes, whatever its class."""


class BaseModule(nn.Module):
    """A network whose task, loss and outputs follow from the data's :class:`Spec`.

    A subclass builds its layers, calls :meth:`initialise`, and defines ``forward(x) -> logits``.

    Args:
        spec: Description of the data (or the dictionary of it that saved models hold).
        loss: Name of the loss, or its class as a mapping with ``_target_``, see :class:`Objective`.
        l1: Weight of the sum of absolute weights in the training loss.
        l2: Weight of the sum of squared weights in the training loss.
        initializer: ``default`` (PyTorch's own), ``he_normal``, ``he_uniform``, ``glorot_normal``,
            ``glorot_uniform``, ``normal`` (standard deviation ``initializer_std``) or ``zeros``; biases become 0.
        initializer_std: Standard deviation for ``normal``.
        start: Starting values of parameters by name, as nested lists; they win over ``initializer``.

    Attributes:
        hyperparameters: What the model was built with, every default filled in; a saved model is built again from it.
        objective: What the outputs mean, and their loss.
    """

    prefers_bfloat16 = False
    """Whether bfloat16 arithmetic pays for this architecture where the hardware is fast at it."""

    differentiable = True
    """Whether the outputs have a gradient with respect to the inputs."""

    at_once: ClassVar[Mapping[str, Any] | None] = None
    """Settings with which a model of this class is fitted in a way of its own, not trained in steps: none for always;
    None where it is always trained in steps."""

    several_where_few = False
    """Whether several fits answer together where rows are few and nothing was asked for (``task.bag_folds=auto``)."""

    knows_validation = False
    """Whether such a model has learnt from validation rows too, so that its answers for them say nothing of others."""

    uses_weights_once = False
    """Whether a sample meets every weight once, so that a step's work follows from parameters and batch size."""

    hyperparameters: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseModule:
        # Noted here, so that no subclass has to remember to do it. Copies are made without arguments.
        module = super().__new__(cls)
        if args or kwargs:
            object.__setattr__(module, "hyperparameters", _arguments(cls, args, kwargs))
        return module

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        loss: Annotated[str | Mapping[str, Any], LOSS] = "auto",
        l1: Annotated[float, NOT_NEGATIVE] = 0.0,
        l2: Annotated[float, NOT_NEGATIVE] = 0.0,
        initializer: Annotated[
            str, Text("the name of an initializer, like he_normal", null=True)
        ] = "default",
        initializer_std: float = 0.05,
        start: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec if isinstance(spec, Spec) else Spec.from_dict(spec)
        self.hyperparameters["spec"] = self.spec.to_dict()
        self.objective = Objective(self.spec, loss, l1, l2)
        self.initializer, self.initializer_std, self.start = initializer, initializer_std, start
        if self.spec.horizon:
            self.register_forward_hook(_beside_last_season)
        if self.spec.pixel_mean:
            shape = (1, -1, 1, 1)
            mean = torch.tensor(self.spec.pixel_mean).view(shape)
            scale = 1 / torch.tensor(self.spec.pixel_std).view(shape)
            self.register_buffer("pixel_mean", mean, persistent=False)
            self.register_buffer("pixel_scale", scale, persistent=False)

    @classmethod
    def from_data(cls, train: Rows, encoder: Encoder, settings: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor that follow from the training data beside its description; usually none.

        Args:
            train: The training split.
            encoder: The data's encoder.
            settings: The other arguments.
        """
        return {}

    @classmethod
    def kept(
        cls, settings: Mapping[str, Any], facts: Mapping[str, Any], rounds: int | None
    ) -> dict[str, Any] | None:
        """The settings of a fit to all rows, after one in which validation rows decided; None where it needs those.

        Args:
            settings: Settings of the fit that had validation rows.
            facts: What its result says of the model.
            rounds: Number of rounds that it kept; None where validation rows did not decide.
        """
        return None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def settled(self) -> Settled:
        """How sure it is, see :meth:`settle`."""
        return self.objective.settled

    def settle(self, settled: Settled) -> None:
        """Take over how sure it is: probabilities, decisions and intervals follow from it, its training does not.

        Args:
            settled: What validation data showed, see :mod:`pipeline.training.sureness`.
        """
        self.objective.settle(settled)

    def initialise(self) -> None:
        """Give the weights their starting values; a subclass calls this once its layers are there."""
        makers: dict[str, Callable[[Tensor], Any]] = {
            "he_normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
            "he_uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
            "glorot_normal": nn.init.xavier_normal_,
            "glorot_uniform": nn.init.xavier_uniform_,
            "normal": lambda w: nn.init.normal_(w, std=self.initializer_std),
            "zeros": nn.init.zeros_,
        }
        if self.initializer != "default":
            if self.initializer not in makers:
                raise UserError(
                    f"unknown initializer {self.initializer!r}; expected default or one of {sorted(makers)}"
                )
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    makers[self.initializer](parameter)
                elif "bias" in name:
                    nn.init.zeros_(parameter)
        for name, values in (self.start or {}).items():
            parameters = dict(self.named_parameters())
            if name not in parameters:
                raise UserError(f"model.start names {name!r}; the parameters are {sorted(parameters)}")
            value = torch.tensor(values, dtype=torch.float32)
            if value.shape != parameters[name].shape:
                raise UserError(
                    f"model.start.{name} has shape {tuple(value.shape)}, not {tuple(parameters[name].shape)}"
                )
            parameters[name].data.copy_(value)

    def normalised(self, x: Tensor) -> Tensor:
        """Raw ``uint8`` images with the training split's mean 0 and deviation 1; other input as float."""
        if self.spec.pixel_mean:
            return (x - cast(Tensor, self.pixel_mean)) * cast(Tensor, self.pixel_scale)
        return x.float()

    def begin_epoch(self, epoch: int) -> None:
        """Called before each training epoch (from 0): what is learnt may change."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """The parameters that are learnt, and how fast beside the learning rate."""
        return [ParameterGroup([parameter for parameter in self.parameters() if parameter.requires_grad])]

    def joined(self, logits: Tensor) -> Tensor:
        """What ``forward`` gives in training, as what it gives otherwise: several members' answers as one."""
        return logits

    def forward_state(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits, and the state to carry into the next batch; models without one ignore it."""
        return self(x), None


def _beside_last_season(model: nn.Module, inputs: tuple[Any, ...], answers: Tensor) -> Tensor:
    """Whatever the architecture, a forecast stands on what was a season before."""
    return cast(BaseModule, model).spec.beside_last_season(inputs[0].to(answers.dtype), answers)


def _arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor by name, with the defaults of every constructor that ``**`` hands them on to."""
    found: dict[str, Any] = {}
    classes = [base for base in cls.__mro__ if "__init__" in base.__dict__ and issubclass(base, BaseModule)]
    for base in classes:
        signature = inspect.signature(base.__dict__["__init__"])
        rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
        bound = signature.bind_partial(None, *args, **kwargs)
        bound.apply_defaults()
        handed_on = bound.arguments.pop(rest, {}) if rest else {}
        for name, value in list(bound.arguments.items())[1:]:
            found.setdefault(name, value)
        if rest is None:
            break
        args, kwargs = (), handed_on
    return found
