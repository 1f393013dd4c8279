"""Networks from elsewhere: any ``nn.Module``, or a function that returns one, trained like a model of this package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.config import build
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError, reason_of
from pipeline.models.base import BaseModule, ParameterGroup
from pipeline.models.stages import NORMS, StandardisedHead, head_of, replace_layer, stage_of, stages
from pipeline.models.weights import LEAST_WITH_AUXILIARY as LEAST
from pipeline.models.weights import Prepared, check_name, find, give, options_of, prepared, read
from pipeline.settings import Flag, Number, Text, Word

log = logging.getLogger(__name__)

TRANSFER = (
    *("weights", "freeze", "solver", "alpha", "solve_first"),
    *("unfreeze", "unfreeze_epoch", "layer_decay", "freeze_norm"),
)
"""Settings of a network that begins with what was learnt elsewhere."""


class Wrapped(BaseModule):
    """A network of any origin that takes a batch and returns logits (or regression values).

    Images reach it as float with the training split's mean 0 and deviation 1, tokens as integer ids, everything else
    as float. Of outputs with names (a tuple with ``logits``, as networks with auxiliary heads give in training) the
    logits count.

    It may begin with weights that were learnt elsewhere. With ``freeze`` the last layer alone is learnt, from features
    that do not change; otherwise everything is, or the last stages, the earlier ones at smaller rates.

    Args:
        spec: Description of the data.
        net: The network.
        weights: Weights to begin with: a file, ``package:PACKAGE/FILE``, or a name of torchvision's; None for none.
        freeze: Whether the last layer alone is learnt; what it learns from is computed once.
        solver: With ``freeze``: ``exact`` solves the last layer to its minimum (ridge or logistic regression on
            standardised features), ``gradient`` trains it in steps.
        alpha: Where the last layer is solved: weight of the squared weights; ``auto``: the best one on validation data.
        solve_first: Whether training begins with the last layer solved to its minimum, as with ``freeze``, so that what
            was learnt elsewhere is not spoilt by the gradients of a layer that knows nothing (Kumar et al. 2022).
        unfreeze: Number of stages before the last layer that are learnt (a stage is a numbered part of the network);
            None for all of them.
        unfreeze_epoch: Number of epochs in which the last layer alone is learnt, before the others join in.
        layer_decay: Factor of the learning rate from each stage to the one before it.
        freeze_norm: Whether batch normalisation keeps the statistics that it begins with, in training too.
        **shared: Settings that every model takes, see :class:`BaseModule`.

    Attributes:
        head: Name of the last layer; None where the network ends in something else.

    Raises:
        UserError: The network does not fit the data, or a setting does not fit the network.
    """

    at_once: ClassVar[Mapping[str, Any] | None] = {"freeze": True, "solver": "exact"}

    ignores_padding: ClassVar[bool] = False
    """Whether what it makes of a text is the same whatever texts stand beside it."""

    memory_format: ClassVar[torch.memory_format] = torch.contiguous_format
    """How the weights of convolutions lie in memory, which what they compute follows."""

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        net: nn.Module,
        weights: Annotated[str | None, Text("a file, package:PACKAGE/FILE or DEFAULT", null=True)] = None,
        freeze: Annotated[bool, Flag()] = False,
        solver: Annotated[str, Word(("exact", "gradient"))] = "exact",
        alpha: Annotated[float | str, Number(0, words=("auto",))] = "auto",
        solve_first: Annotated[bool, Flag()] = False,
        unfreeze: Annotated[int | None, Number(0, whole=True, null=True)] = None,
        unfreeze_epoch: Annotated[int, Number(0, whole=True)] = 0,
        layer_decay: Annotated[float, Number(0, 1, above=True)] = 1.0,
        freeze_norm: Annotated[bool, Flag()] = False,
        **shared: Any,
    ) -> None:
        super().__init__(spec, **shared)
        self.net, self.weights = net, weights
        self.freeze, self.solver, self.alpha, self.solve_first = freeze, solver, alpha, solve_first
        self.unfreeze, self.unfreeze_epoch, self.layer_decay = unfreeze, unfreeze_epoch, layer_decay
        self.head: str | None = None
        self.freeze_norm = freeze_norm
        self._waiting, self._fixed = False, frozenset[str]()
        self._check_settings()
        if self._solved is not None and self.is_features(self._small_batch()):
            raise UserError(
                f"model.{self._solved}=true: a sample of this data is a row of numbers, which are features already: "
                f"model=linear model.solver=exact learns from them as they are; or set model.{self._solved}=false"
            )
        net.to(memory_format=self.memory_format)
        self._try()
        self._find_head()
        self.initialise()
        self._fixed = self._fixed_stages()
        self._set_learning()

    @property
    def _solved(self) -> str | None:
        """The setting that has the last layer solved, None where it is not."""
        return "freeze" if self.freeze else "solve_first" if self.solve_first else None

    def _check_settings(self) -> None:
        if self.freeze and self.solve_first:
            raise UserError(
                "model.solve_first=true: with model.freeze=true nothing is learnt after that; leave one of them out"
            )
        if self.freeze_norm and not any(isinstance(module, NORMS) for module in self.net.modules()):
            raise UserError(
                f"model.freeze_norm=true: {type(self.net).__name__} has no batch normalisation; leave it out"
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.freeze and self.is_features(x):
            answer: Tensor = self.head_layer(x)
            return answer
        outputs = self.net(self._input(x))
        found: Tensor = getattr(outputs, "logits", outputs)
        return found

    def _input(self, x: Tensor) -> Tensor:
        return x.long() if self.spec.input == "tokens" else self.normalised(x)

    @classmethod
    def kept(
        cls, settings: Mapping[str, Any], facts: Mapping[str, Any], rounds: int | None
    ) -> dict[str, Any] | None:
        exact = settings.get("freeze") and settings.get("solver", "exact") == "exact"
        # What is trained in steps after that needs validation rows elsewhere: they say which epoch is best.
        first = settings.get("solve_first") and rounds is not None
        return {"alpha": facts["alpha"]} if exact or first else None

    # What was learnt elsewhere.

    @classmethod
    def prepared(cls, settings: Mapping[str, Any]) -> Prepared | None:
        """How images reached the weights that ``settings`` name; None for no weights."""
        return prepared(None, settings.get("weights"))

    @classmethod
    def wants(cls, settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of the data that the weights call for, beside those of :meth:`prepared`; usually none.

        Args:
            settings: The ``model`` node, which names weights.
            data: The ``data`` node.
        """
        return {}

    @classmethod
    def of_files(cls, settings: Mapping[str, Any], data_dir: Path) -> dict[str, Any]:
        """Arguments of the constructor that files beside the weights tell; usually none.

        Args:
            settings: The ``model`` node, which names weights.
            data_dir: The user's data directory.
        """
        return {}

    def find_weights(self, data_dir: Path) -> Path:
        """The file of the weights that it is to begin with."""
        return find(None, str(self.weights), data_dir)

    def begin_with(self, path: Path) -> None:
        """Take over weights that were learnt elsewhere; the last layer begins anew where it has other outputs.

        Raises:
            UserError: They cannot be read, or do not fit; what does not is named.
        """
        kept = give(self.net, read(path), self.head, str(path))
        new = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in kept))
        log.info("the weights of %s%s", path, f"; new: {new}" if new else "")

    # The last layer by itself, on features.

    @property
    def head_layer(self) -> StandardisedHead:
        """The last layer of a network that has it solved."""
        layer = self.net.get_submodule(self.head or "")
        assert isinstance(layer, StandardisedHead)
        return layer

    def is_features(self, x: Tensor) -> bool:
        """Whether a batch is what :meth:`features` gives, and not what the data gives."""
        return x.dim() == 2 and x.is_floating_point()

    def features(self, x: Tensor) -> Tensor:
        """What the last layer learns from, (samples, features), for a batch of the data."""
        met: list[Tensor] = []
        hook = self.head_layer.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0]))
        try:
            self.net(self._input(x))
        finally:
            hook.remove()
        return met[-1]

    def _find_head(self) -> None:
        with torch.no_grad():
            self.eval()
            x = self._small_batch()

            def called() -> Tensor:
                outputs = self(x)
                return outputs if isinstance(outputs, Tensor) else torch.zeros(0)

            frozen, self.freeze = self.freeze, False
            self.head, last = head_of(self.net, called, self.spec.outputs)
            self.freeze = frozen
            self.train()
        if self._solved is None:
            return
        if self.head is None or not last:
            raise UserError(
                f"model.{self._solved}=true: {type(self.net).__name__} does not end in a linear layer with "
                f"{self.spec.outputs} outputs on {self.spec.input} data; train it whole (model.{self._solved}=false)"
            )
        old = self.net.get_submodule(self.head)
        assert isinstance(old, nn.Linear)
        replace_layer(self.net, self.head, StandardisedHead(old.in_features, self.spec.outputs))

    # What is learnt, and how fast.

    def _fixed_stages(self) -> frozenset[str]:
        known = stages(self.net, self.head)
        if self.freeze or self.unfreeze == 0:
            return frozenset(known)
        if self.unfreeze is None:
            return frozenset()
        if self.unfreeze > len(known):
            raise UserError(
                f"model.unfreeze={self.unfreeze}: {type(self.net).__name__} has {len(known)} stages before its head"
            )
        return frozenset(known[: -self.unfreeze])

    def begin_epoch(self, epoch: int) -> None:
        """Let the stages that waited join in, or wait (``unfreeze_epoch``).

        Args:
            epoch: Number of the epoch, from 0.
        """
        waiting = epoch < self.unfreeze_epoch
        if waiting != self._waiting:
            self._waiting = waiting
            self._set_learning()
        # Also where nothing changed: a trainer may have put single layers back into training.
        self.train(self.training)

    def _set_learning(self) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(
                not self._is_fixed(name) and not (self._waiting and not self._is_head(name))
            )

    def _is_head(self, name: str) -> bool:
        return self.head is not None and (name == self.head or name.startswith(f"{self.head}."))

    def _is_fixed(self, name: str) -> bool:
        return not self._is_head(name) and stage_of(name) in self._fixed

    def train(self, mode: bool = True) -> Wrapped:
        """Training or evaluation; what is not learnt stays in evaluation, its statistics as they are."""
        super().train(mode)
        if mode and (self._fixed or self._waiting) and self.head is not None:
            whole = self._waiting or self.freeze or self.unfreeze == 0
            for name, module in self.net.named_modules():
                if name and not self._is_head(name) and (whole or self._is_fixed(f"{name}.weight")):
                    module.training = False
        if mode and self.freeze_norm:
            for module in self.net.modules():
                module.training = module.training and not isinstance(module, NORMS)
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """The parameters that are learnt, at some time or other, by stage, with their share of the learning rate."""
        known = [*stages(self.net, self.head), self.head]
        groups: dict[str | None, list[nn.Parameter]] = {stage: [] for stage in known}
        for name, parameter in self.net.named_parameters():
            if not self._is_fixed(name):
                groups[self.head if self._is_head(name) else stage_of(name)].append(parameter)
        if self.layer_decay == 1.0:
            return [ParameterGroup([one for group in groups.values() for one in group], 1.0)]
        top = len(known) - 1
        found = [
            ParameterGroup(group, self.layer_decay ** (top - place))
            for place, group in enumerate(groups.values())
        ]
        # The last layer first: its rate is the one that is shown.
        return [group for group in reversed(found) if group.parameters]

    def _small_batch(self) -> Tensor:
        spec = self.spec
        shape = tuple(size or 4 for size in spec.input_shape)
        kind = torch.long if spec.input == "tokens" else torch.uint8 if spec.pixel_mean else torch.float32
        return torch.ones(2, *shape, dtype=kind)

    def _try(self) -> None:
        """One small batch, before anything is trained: what does not fit is said here, and lazy layers get a shape."""
        spec, name = self.spec, type(self.net).__name__
        shape = tuple(size or 4 for size in spec.input_shape)
        x = self._small_batch()
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                outputs = self(x)
        except Exception as error:
            reason = reason_of(error)
            raise UserError(
                f"model: {name} does not take this data, a batch of {spec.input} of the shape {tuple(x.shape)}: "
                f"{reason}{' (data.image_size says how large)' * (spec.input == 'image')}"
            ) from error
        finally:
            self.train(was_training)
        expected = (2, shape[0], spec.outputs) if spec.per_step else (2, spec.outputs)
        if not isinstance(outputs, Tensor):
            raise UserError(
                f"model: {name} returns a {type(outputs).__name__}; expected one tensor of the shape {expected}, a row "
                "a sample: wrap it in a module that returns the logits"
            )
        if tuple(outputs.shape) != expected and not (spec.outputs == 1 and outputs.shape == expected[:-1]):
            raise UserError(
                f"model: {name} returns the shape {tuple(outputs.shape)} for a batch of 2; expected {expected}: a "
                f"number for each of {spec.outputs} outputs. In the model's settings ${{spec:outputs}} stands for it"
            )
        if spec.task == "multiclass" and (outputs >= 0).all() and outputs.sum(-1).sub(1).abs().max() < 1e-3:
            log.warning(
                "model: %s returns probabilities; leave its softmax out, the loss has one of its own", name
            )


class Foreign(Wrapped):
    """A network that a configuration describes: any ``nn.Module``, or a function that returns one.

    Args:
        spec: Description of the data.
        net: Description of the network: ``_target_`` and the arguments of its constructor.
        **shared: Settings of networks with weights, see :class:`Wrapped`, and of every model.

    Raises:
        UserError: The network cannot be built, or does not fit the data.

    Example:
        >>> Foreign(spec, {"_target_": "torchvision.models.resnet18", "num_classes": 10})
    """

    def __init__(self, spec: Spec | dict[str, Any], net: Mapping[str, Any], **shared: Any) -> None:
        built = build(net, key="model")
        if not isinstance(built, nn.Module):
            raise UserError(
                f"model._target_={net['_target_']} gave a {type(built).__name__}; expected a torch.nn.Module"
            )
        super().__init__(spec, built, **shared)


class OfImages(Wrapped):
    """A network for colour images; a single channel is repeated three times.

    Its channels lie beside each other in memory: a training step of EfficientNet-Lite0 then takes 0.56 s of a core
    instead of 0.93 s.
    """

    memory_format = torch.channels_last

    def normalised(self, x: Tensor) -> Tensor:
        """Three channels, whatever the images have."""
        channels = super().normalised(x)
        return channels if channels.shape[1] == 3 else channels[:, :1].expand(-1, 3, -1, -1)


def of_images(spec: Spec | dict[str, Any], model: str) -> Spec:
    """The description of data that is images.

    Raises:
        UserError: It is something else.
    """
    described = spec if isinstance(spec, Spec) else Spec.from_dict(spec)
    if described.input != "image":
        raise UserError(f"model={model} needs images, but this data gives {described.input}")
    return described


class TorchvisionModel(OfImages):
    """A classification network of torchvision, by its name.

    Args:
        spec: Description of the data, which is images; a single channel is repeated three times.
        name: Name of the network, as ``torchvision.models.list_models()`` gives it.
        options: Further arguments of the network's constructor.
        weights: Name of torchvision's weights, ``DEFAULT`` for the best ones; a file, or ``package:PACKAGE/FILE``; None
            begins from scratch.
        **shared: Settings of networks with weights, see :class:`Wrapped`, and of every model.

    Raises:
        UserError: There is no network of that name, or it does not fit the data.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        name: str = "resnet18",
        options: Mapping[str, Any] | None = None,
        weights: Annotated[str | None, Text("DEFAULT, a file or package:PACKAGE/FILE", null=True)] = None,
        **shared: Any,
    ) -> None:
        from torchvision import models

        check_name(name)
        described = of_images(spec, "torchvision")
        try:
            settings = {**options_of(name, weights), **(options or {})}
            net = models.get_model(name, weights=None, num_classes=described.outputs, **settings)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.options: torchvision's {name} refused its settings: {error}") from error
        # As large as the smallest images that it was made for.
        least = models.get_model_weights(name).DEFAULT.meta["min_size"]
        if settings.get("aux_logits"):
            least = LEAST.get(name, least)
        self._least = (max(least[0], described.input_shape[1]), max(least[1], described.input_shape[2]))
        self.name = name
        super().__init__(described, net, weights=weights, **shared)

    @classmethod
    def prepared(cls, settings: Mapping[str, Any]) -> Prepared | None:
        name = str(settings.get("name") or "resnet18")
        check_name(name)
        return prepared(name, settings.get("weights"))

    def find_weights(self, data_dir: Path) -> Path:
        return find(self.name, str(self.weights), data_dir)

    def normalised(self, x: Tensor) -> Tensor:
        """Three channels, whatever the images have, and no fewer pixels than the network takes."""
        channels = super().normalised(x)
        if tuple(channels.shape[2:]) != self._least:
            channels = nn.functional.interpolate(channels, self._least, mode="bilinear", antialias=True)
        return channels
