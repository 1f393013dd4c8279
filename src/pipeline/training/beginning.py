"""Networks that begin with weights from elsewhere, and data as these want it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import resolve
from pipeline.data.core.module import DataModule
from pipeline.models.foreign import Foreign, Wrapped
from pipeline.training.plan import Node


def with_weights(
    make: Callable[..., Wrapped], kind: type[Wrapped], settings: Node, data: DataModule
) -> Wrapped:
    """A network that begins with weights that were learnt elsewhere, where ``settings`` name some.

    Args:
        make: Function that makes the network for a description of the data, and what files beside the weights tell.
        kind: Its class, which knows how images reached the weights.
        settings: The ``model`` node.
        data: The data, whose directory weights are looked for in.

    Raises:
        UserError: The weights are not to be had, or do not fit.
    """
    how = kind.prepared(settings)
    if how is None:
        return make(data.spec)
    spec = how.spec(data.spec) if data.spec.input == "image" else data.spec
    model = make(spec, **kind.of_files(settings, data.data_dir))
    model.begin_with(model.find_weights(data.data_dir))
    return model


def fitted_to(data: dict[str, Any], model: Node) -> dict[str, Any]:
    """The ``data`` settings with what the ``model``'s weights want of images or texts, where nothing was said of it.

    Args:
        data: The ``data`` node.
        model: The ``model`` node.

    Raises:
        UserError: There are no such weights.
    """
    wanted = ("image_size", "crop", "interpolation")
    if not model.get("weights"):
        return data
    target = resolve(model["_target_"], "model._target_")
    kind = target if isinstance(target, type) and issubclass(target, Wrapped) else Foreign
    data = {**data, **kind.wants(model, data)}
    if not all(name in data for name in wanted):
        return data
    how = kind.prepared(model)
    if how is None or how.size is None:
        return data
    found = {"image_size": how.size, "crop": how.crop, "interpolation": how.interpolation}
    if data["image_size"] is not None:
        # Asked for in another size: the same part of each image.
        del found["image_size"]
    return {**data, **{name: value for name, value in found.items() if data[name] is None}}
