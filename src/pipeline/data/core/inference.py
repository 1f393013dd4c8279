"""A Spec from what data looks like: one batch of inputs and targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError

log = logging.getLogger(__name__)


def spec_of(
    x: Tensor, y: Tensor, given: Mapping[str, Any], classes: Callable[[], tuple[str, ...]], where: str
) -> Spec:
    """The description of a data set from a batch, and what is said about it.

    Args:
        x: Inputs, (samples, …): whole or real numbers.
        y: Targets, (samples,) or (samples, outputs); whole numbers are classes, real ones are to be predicted.
        given: Fields of the Spec that were said; the others are inferred.
        classes: Function that gives the names of the classes; only called where they are needed and were not said.
        where: The data's name, for messages.

    Raises:
        UserError: A Spec does not have one of the fields, or the data says too little.
    """
    said = {name: value for name, value in given.items() if value is not None}
    if unknown := [name for name in said if name not in Spec.__dataclass_fields__]:
        raise UserError(
            f"data.spec.{unknown[0]}: there is no such field. {suggest(unknown[0], Spec.__dataclass_fields__)}"
        )
    found: dict[str, Any] = {"input": _input(x), "input_shape": tuple(x.shape[1:]), **_target(y)}
    found |= {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    if found["input"] == "tokens":
        found["input_shape"] = said.get("input_shape") or (0,)
        if not found.get("vocabulary"):
            raise UserError(
                f"data: the inputs of {where} are whole numbers, which are taken for token ids; say how many there "
                "are: +data.spec.vocabulary=N (or make them float)"
            )
    if found["task"] != "regression":
        names = tuple(str(name) for name in found.get("classes") or classes())
        found["classes"] = names
        found.setdefault("outputs", 1 if found["task"] == "binary" else len(names))
    spec = Spec(**found)
    if set(Spec.__dataclass_fields__) & {"task", "input", "outputs"} - set(said):
        log.info(
            "%s: taken for %s of %s with %d outputs (data.spec.task, data.spec.input, data.spec.outputs say otherwise)",
            where,
            spec.task,
            spec.input,
            spec.outputs,
        )
    return spec


def _input(x: Tensor) -> str:
    if x.dim() == 4:
        return "image"
    if x.dim() == 3:
        return "series"
    if not x.is_floating_point() and x.dtype != torch.bool:
        return "tokens"
    return "vector"


def _target(y: Tensor) -> dict[str, Any]:
    if y.is_floating_point():
        return {"task": "regression", "outputs": 1 if y.dim() == 1 else y.shape[1]}
    return {"task": "binary", "outputs": 1} if y.dtype == torch.bool else {"task": "multiclass"}


def class_names(source: Any, targets: Callable[[], Tensor]) -> tuple[str, ...]:
    """Names of the classes: what a data set calls them, how many it says there are, or as many as occur.

    Args:
        source: Objects that may know, the surest first.
        targets: Function that gives all training targets; only called where nothing else is known.
    """
    for thing in source:
        names = getattr(thing, "classes", None)
        if isinstance(names, list | tuple) and names:
            return tuple(map(str, names))
        count = getattr(thing, "num_classes", None)
        if isinstance(count, int) and count > 1:
            return tuple(map(str, range(count)))
    return tuple(map(str, range(int(targets().max()) + 1)))
