"""Networks from elsewhere: any ``nn.Module``, or a function that returns one, trained like a model of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import build
from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import BaseModule


class Wrapped(BaseModule):
    """A network of any origin that takes a batch and returns logits (or regression values).

    Images reach it as float with the training split's mean 0 and deviation 1, tokens as integer ids, everything else
    as float. Of outputs with names (a tuple with ``logits``, as networks with auxiliary heads give in training) the
    logits count.

    Args:
        spec: Description of the data.
        net: The network.
        **shared: Settings that every model takes, see :class:`BaseModule`.

    Raises:
        UserError: The network does not fit the data.
    """

    def __init__(self, spec: Spec | dict[str, Any], net: nn.Module, **shared: Any) -> None:
        super().__init__(spec, **shared)
        self.net = net
        self._try()
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x.long() if self.spec.input == "tokens" else self.normalised(x))
        found: Tensor = getattr(outputs, "logits", outputs)
        return found

    def _try(self) -> None:
        """One small batch, before anything is trained: what does not fit is said here, and lazy layers get a shape."""
        spec, name = self.spec, type(self.net).__name__
        shape = tuple(size or 4 for size in spec.input_shape)
        kind = torch.long if spec.input == "tokens" else torch.uint8 if spec.pixel_mean else torch.float32
        x = torch.ones(2, *shape, dtype=kind)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                outputs = self(x)
        except Exception as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise UserError(
                f"model: {name} does not take this data, a batch of {spec.input} of the shape {tuple(x.shape)}: "
                f"{reason}"
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


class Foreign(Wrapped):
    """A network that a configuration describes: any ``nn.Module``, or a function that returns one.

    Args:
        spec: Description of the data.
        net: Description of the network: ``_target_`` and the arguments of its constructor.
        **shared: Settings that every model takes, see :class:`BaseModule`.

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


class TorchvisionModel(Wrapped):
    """A classification network of torchvision, by its name.

    Args:
        spec: Description of the data, which is images; a single channel is repeated three times.
        name: Name of the network, as ``torchvision.models.list_models()`` gives it.
        options: Further arguments of the network's constructor.
        **shared: Settings that every model takes, see :class:`BaseModule`.

    Raises:
        UserError: There is no network of that name, or it does not fit the data.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        name: str = "resnet18",
        options: Mapping[str, Any] | None = None,
        **shared: Any,
    ) -> None:
        from torchvision import models

        known = models.list_models(models)
        if name not in known:
            raise UserError(
                f"model.name={name}: torchvision has no classification network of that name. {suggest(name, known)}"
            )
        described = spec if isinstance(spec, Spec) else Spec.from_dict(spec)
        if described.input != "image":
            raise UserError(f"model=torchvision needs images, but this data gives {described.input}")
        try:
            net = models.get_model(name, weights=None, num_classes=described.outputs, **(options or {}))
        except (TypeError, ValueError) as error:
            raise UserError(f"model.options: torchvision's {name} refused its settings: {error}") from error
        super().__init__(described, net, **shared)

    def normalised(self, x: Tensor) -> Tensor:
        """Three channels, whatever the images have."""
        channels = super().normalised(x)
        return channels if channels.shape[1] == 3 else channels[:, :1].expand(-1, 3, -1, -1)
