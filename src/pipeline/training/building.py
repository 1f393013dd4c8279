"""From settings to the objects that they describe: data, model, and how it is optimised."""

from __future__ import annotations

import inspect
import json
from typing import Any, cast

import torch

from pipeline import metrics
from pipeline.config import build, resolve
from pipeline.data.core.module import READING, DataModule
from pipeline.data.core.spec import Spec
from pipeline.errors import UserError
from pipeline.models.base import SHARED, BaseModule
from pipeline.models.foreign import Foreign
from pipeline.training.plan import FitPlan, Node
from pipeline.training.step import Optimisation

_FUSED = ("torch.optim.Adam", "torch.optim.AdamW")
"""Optimisers whose step is one kernel where that exists: a fifth of the step of a small MLP is saved."""
_HAS_FUSED = ("cpu", "cuda")

_prepared: dict[str, DataModule] = {}


def build_data(settings: Node) -> DataModule:
    """The data set that ``settings`` describe, prepared and set up; one that this process has is used again.

    Raises:
        UserError: The data is not to be had, or not what was asked for.
    """
    reading = {name: settings[name] for name in READING if name in settings}
    fixed = {name: value for name, value in settings.items() if name not in READING or name == "batch_size"}
    key = json.dumps(fixed, sort_keys=True, default=str)
    shareable = {name: value for name, value in fixed.items() if name != "batch_size"}
    shared_key = json.dumps(shareable, sort_keys=True, default=str)
    data = _prepared.get(key) or _prepared.get(shared_key)
    if data is None:
        data = build(settings, key="data")
        if not isinstance(data, DataModule):
            raise UserError(f"data._target_={settings['_target_']} is not a data set of this project")
        data.prepare_data()
        data.setup()
        # Only the newest is kept: a sweep goes over one data set, and two large ones may not fit.
        _prepared.clear()
        _prepared[key if data.batch_size_shapes_splits else shared_key] = data
    return data.with_reading(**reading)


def build_model(settings: Node, spec: Spec) -> BaseModule:
    """The model that ``settings`` describe for data of ``spec``, with its starting weights.

    A network from elsewhere (any ``nn.Module``, or a function that returns one) is wrapped in :class:`Foreign`.

    Raises:
        UserError: The model does not fit the data, or a setting is wrong.
    """
    own = spec.filled_in({name: value for name, value in settings.items() if name != "compile"})
    target = resolve(own["_target_"], "model._target_", functions=True)
    if isinstance(target, type) and issubclass(target, BaseModule):
        return cast(BaseModule, build(own, key="model", spec=spec.to_dict()))
    takes = inspect.signature(target).parameters
    shared = {name: own.pop(name) for name in SHARED if name in own and name not in takes}
    return Foreign(spec.to_dict(), own, **shared)


def optimisation(plan: FitPlan) -> Optimisation:
    """How a model of this package is optimised."""
    scheduler = dict(plan.scheduler) if plan.scheduler else None
    interval = scheduler.pop("interval", "epoch") if scheduler else "epoch"
    monitor = scheduler.pop("monitor", None) if scheduler else None
    epochs = int(plan.trainer.get("max_epochs") or 1)

    def make_scheduler(optimiser: torch.optim.Optimizer, steps: int) -> Any:
        assert scheduler is not None
        length = steps if interval == "step" else epochs
        arguments = {key: length if value == "auto" else value for key, value in scheduler.items()}
        return build(arguments, optimiser, key="scheduler")

    def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        fused = {"fused": True} if _can_be_fused(plan, parameters) else {}
        return cast(torch.optim.Optimizer, build({**plan.optimizer, **fused}, parameters, key="optimizer"))

    return Optimisation(
        optimizer=make_optimizer,
        scheduler=make_scheduler if scheduler else None,
        interval=interval,
        monitor=monitor,
        accumulate=int(plan.trainer.get("accumulate_grad_batches") or 1),
        clip_value=plan.trainer.get("gradient_clip_val"),
        clip_algorithm=plan.trainer.get("gradient_clip_algorithm") or "norm",
    )


def _can_be_fused(plan: FitPlan, parameters: list[torch.Tensor]) -> bool:
    """Whether nothing that was asked for speaks against the optimiser's fused form."""
    asked = any(name in plan.optimizer for name in ("fused", "foreach", "differentiable"))
    # Lightning's mixed precision refuses to clip for optimisers that can unscale gradients themselves.
    clips = plan.trainer.get("gradient_clip_val") is not None
    at_home = all(parameter.device.type in _HAS_FUSED for parameter in parameters)
    return plan.optimizer["_target_"] in _FUSED and not asked and not clips and at_home


def monitored(plan: FitPlan, data: DataModule) -> tuple[str | None, str]:
    """The metric that decides which epoch is best and whether ``max`` or ``min``; None where nothing is held out.

    Raises:
        UserError: It is not known which way the metric is better, and ``objective.direction`` does not say.
    """
    metric, mode = data.spec.monitor
    asked = plan.checkpoint.monitor if plan.checkpoint.monitor != "auto" else plan.metric
    if asked is None:
        return None, mode
    if asked != "auto":
        metric = asked
        if plan.direction == "auto":
            mode = metrics.direction(metric)
        else:
            mode = "max" if plan.direction == "maximize" else "min"
    if data.validation is None and metric.startswith("val/"):
        return None, mode
    return metric, mode


def parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
