"""From a configuration to data and model."""

from __future__ import annotations

import copy
import json
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from pipeline.config import build
from pipeline.config.checks import without_left_overs
from pipeline.data.core.module import DataModule
from pipeline.errors import UserError
from pipeline.models.base import BaseModule, Optimisation

_READING = ("eval_batch_size", "shuffle", "augment")
"""Settings of how a data set is gone through, which leave what was prepared as it is."""

_FUSED = ("torch.optim.Adam", "torch.optim.AdamW")
"""Optimisers whose step is one kernel where that exists: a fifth of the step of a small MLP is saved."""
_HAS_FUSED = ("cpu", "cuda")

_prepared: dict[str, DataModule] = {}


def plain(node: Any) -> Any:
    """A node of the configuration as plain Python values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def build_data(cfg: DictConfig) -> DataModule:
    """The data set of ``cfg``, prepared and set up; one that this process has prepared before is used again.

    Raises:
        UserError: the data is not to be had, or not what was asked for.
    """
    settings = without_left_overs("data", plain(cfg.data))
    fixed = {key: value for key, value in settings.items() if key not in _READING}
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
    data = copy.copy(data)
    for name in (*_READING, "batch_size"):
        if name in settings:
            setattr(data, name, settings[name])
    data.run_seed = int(cfg.seed)
    return data


def build_model(cfg: DictConfig, data: DataModule) -> BaseModule:
    """The model of ``cfg`` for ``data``, with its starting weights and its way to be trained.

    Raises:
        UserError: the model does not fit the data, or a setting is wrong.
    """
    settings = without_left_overs("model", plain(cfg.model))
    compiled = settings.pop("compile", False)
    model = build(settings, key="model", spec=data.spec.to_dict())
    if not isinstance(model, BaseModule):
        raise UserError(f"model._target_={settings['_target_']} is not a model of this project")
    model.optimisation = optimisation(cfg)
    if compiled:
        model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
    return model


def optimisation(cfg: DictConfig) -> Optimisation:
    """How the model of ``cfg`` is trained."""
    optimizer = cast("dict[str, Any]", plain(cfg.optimizer))
    scheduler = cast("dict[str, Any] | None", plain(cfg.scheduler))
    trainer = cfg.trainer
    interval = scheduler.pop("interval", "epoch") if scheduler else "epoch"
    monitor = scheduler.pop("monitor", None) if scheduler else None
    accumulate = int(trainer.get("accumulate_grad_batches") or 1)
    epochs = int(trainer.get("max_epochs") or 1)

    def make_scheduler(optimiser: torch.optim.Optimizer, steps: int) -> Any:
        assert scheduler is not None
        length = steps if interval == "step" else epochs
        arguments = {key: length if value == "auto" else value for key, value in scheduler.items()}
        return build(arguments, optimiser, key="scheduler")

    def make_optimizer(parameters: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        arguments = {**optimizer, "fused": True} if _can_be_fused(cfg, parameters) else optimizer
        return cast(torch.optim.Optimizer, build(arguments, parameters, key="optimizer"))

    return Optimisation(
        optimizer=make_optimizer,
        scheduler=make_scheduler if scheduler else None,
        interval=interval,
        monitor=monitor,
        accumulate=accumulate,
        clip_value=trainer.get("gradient_clip_val"),
        clip_algorithm=trainer.get("gradient_clip_algorithm") or "norm",
    )


def _can_be_fused(cfg: DictConfig, parameters: list[torch.Tensor]) -> bool:
    """Whether nothing that was asked for speaks against the optimiser's fused form."""
    asked = any(name in cfg.optimizer for name in ("fused", "foreach", "differentiable"))
    # Lightning's mixed precision refuses to clip for optimisers that can unscale gradients themselves.
    clips = cfg.trainer.get("gradient_clip_val") is not None
    at_home = all(parameter.device.type in _HAS_FUSED for parameter in parameters)
    return cfg.optimizer["_target_"] in _FUSED and not asked and not clips and at_home


def monitored(cfg: DictConfig, data: DataModule) -> tuple[str | None, str]:
    """The metric that decides which epoch is best and whether ``max`` or ``min``; None where nothing is held out."""
    metric, mode = data.spec.monitor
    asked = cfg.checkpoint.monitor if cfg.checkpoint.monitor != "auto" else cfg.objective.metric
    if asked is None:
        return None, mode
    if asked != "auto":
        metric = str(asked)
        direction = str(cfg.objective.direction)
        if direction == "auto":
            rising = ("accuracy", "f1", "hit_rate", "auc", "r2")
            mode = "max" if any(word in metric for word in rising) else "min"
        else:
            mode = "max" if direction == "maximize" else "min"
    if data.validation is None and metric.startswith("val/"):
        return None, mode
    return metric, mode


def parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
