"""From settings to the objects that they describe: data, model, and how it is optimised."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from pipeline import metrics
from pipeline.config import build, resolve
from pipeline.config.checks import without_left_overs
from pipeline.config.typed import typed_overrides
from pipeline.data.core.memory import give_back
from pipeline.data.core.module import READING, DataModule
from pipeline.data.core.spec import Spec, asks_for_spec
from pipeline.data.foreign import LightningData, OwnLoaders, overrides
from pipeline.errors import UserError
from pipeline.models.base import SHARED, BaseModule, ParameterGroup
from pipeline.models.foreign import TRANSFER, Foreign, Wrapped
from pipeline.training.beginning import fitted_to, with_weights
from pipeline.training.libraries import library_of
from pipeline.training.plan import FitPlan, Node
from pipeline.training.step import Optimisation
from pipeline.training.stopping import seconds_of

log = logging.getLogger(__name__)

_FUSED = ("torch.optim.Adam", "torch.optim.AdamW")
"""Optimisers whose step is one kernel where that exists: a fifth of the step of a small MLP is saved."""
_HAS_FUSED = ("cpu", "cuda")

_SHARED_DATA = ("name", "spec", *inspect.signature(DataModule.__init__).parameters)
"""Settings that all data sets of ours take; a person's own data module gets those that it takes too."""

_UNASKED = "mnist"
"""The data set where none is chosen."""

_prepared: dict[str, DataModule] = {}


def build_data(settings: Node, model: Node | None = None) -> DataModule:
    """The data set that ``settings`` describe, prepared and set up; one that this process has is used again.

    Args:
        settings: The ``data`` node.
        model: The ``model`` node, whose weights may want images of a size; None for no model.

    Raises:
        UserError: The data is not to be had, or not what was asked for.
    """
    if _unasked(settings) and (brings := _with_own_loaders(model or {})):
        log.info("data: the loaders that %s brings itself", brings)
        return LightningData(OwnLoaders(), brings)
    settings = without_left_overs("data", fitted_to(dict(settings), model or {}))
    reading = {name: settings[name] for name in READING if name in settings}
    fixed = {name: value for name, value in settings.items() if name not in READING or name == "batch_size"}
    key = json.dumps(fixed, sort_keys=True, default=str)
    shareable = {name: value for name, value in fixed.items() if name != "batch_size"}
    shared_key = json.dumps(shareable, sort_keys=True, default=str)
    data = _prepared.get(key) or _prepared.get(shared_key)
    if data is None:
        data = _data_set(settings)
        data.prepare_data()
        data.setup()
        give_back()
        # Only the newest is kept: a sweep goes over one data set, and two large ones may not fit.
        _prepared.clear()
        _prepared[key if data.batch_size_shapes_splits else shared_key] = data
    return data.with_reading(**reading)


def _unasked(settings: Node) -> bool:
    """Whether the data is what stands there where nobody chose any."""
    shipped = settings.get("name") == _UNASKED and str(settings.get("_target_")).startswith("pipeline.")
    return shipped and not typed_overrides("data", "experiment")


def _with_own_loaders(model: Node) -> str | None:
    """The name of a LightningModule whose loaders are its own, None for any other model."""
    target = model.get("_target_")
    if not isinstance(target, str) or target.startswith("pipeline."):
        return None
    found = resolve(target, "model._target_")
    return found.__name__ if library_of(found) and overrides(found, "train_dataloader") else None


def _data_set(settings: Node) -> DataModule:
    """A data set of ours, or a person's own LightningDataModule with what is known of it."""
    target = resolve(settings["_target_"], "data._target_")
    if isinstance(target, type) and issubclass(target, DataModule):
        return cast(DataModule, build({"name": target.__name__.lower(), **settings}, key="data"))
    takes = inspect.signature(target).parameters
    own = {key: value for key, value in settings.items() if key in takes or key not in _SHARED_DATA}
    inner = build(own, key="data")
    if library_of(inner, "LightningDataModule") is None:
        raise UserError(
            f"data._target_={settings['_target_']} gave a {type(inner).__name__}; expected a data set of this project, "
            "or a LightningDataModule"
        )
    name = str(settings.get("name") or type(inner).__name__)
    size = int(getattr(inner, "batch_size", settings.get("batch_size") or 1) or 1)
    return LightningData(inner, name, settings.get("spec"), size)


def build_model(settings: Node, data: DataModule, plan: FitPlan) -> BaseModule | Any:
    """The model that ``settings`` describe for ``data``, with its starting weights.

    A network from elsewhere (any ``nn.Module``, or a function that returns one) is wrapped in :class:`Foreign`; a
    person's LightningModule, of ``pytorch_lightning`` or of ``lightning``, comes as it is.

    Args:
        settings: The ``model`` node.
        data: The data; what follows from it is filled in for ``${spec:NAME}``.
        plan: How the model is trained: a LightningModule that takes an ``optimizer`` gets the chosen one.

    Raises:
        UserError: The model does not fit the data, or a setting is wrong.
    """
    own = without_left_overs("model", dict(settings))
    own.pop("compile", None)
    if asks_for_spec(own):
        own = data.spec.filled_in(own)
    target = resolve(own["_target_"], "model._target_")
    # A loss by its class is built by the model, whose description of itself holds plain values.
    of_class = isinstance(target, type) and issubclass(target, BaseModule)
    given = {"loss": own.pop("loss")} if of_class and isinstance(own.get("loss"), Mapping) else {}
    if isinstance(target, type) and issubclass(target, Wrapped):
        return with_weights(
            lambda spec, **told: build(own, key="model", spec=spec.to_dict(), **given, **told),
            target,
            own,
            data,
        )
    if isinstance(target, type) and issubclass(target, BaseModule):
        start = word_vectors(own, data) if own.get("vectors") else None
        learnt = target.from_data(data.train, data.encoder, own)
        model: BaseModule = build(own, key="model", spec=data.spec.to_dict(), **given, **learnt)
        if start is not None:
            begin_with(model, start)
        return model
    takes = inspect.signature(target).parameters
    if library_of(target) is None:
        of_ours = (*SHARED, *TRANSFER)
        shared = {name: own.pop(name) for name in of_ours if name in own and name not in takes}
        return with_weights(lambda spec: Foreign(spec.to_dict(), own, **shared), Foreign, shared, data)
    shared = {name: own.pop(name) for name in SHARED if name in own and name not in takes}
    if "compile" in takes and "compile" in settings:
        own["compile"] = settings["compile"]
    for name, node in (("optimizer", plan.optimizer), ("scheduler", plan.scheduler)):
        # As modules of the usual templates take them: functions of the parameters, and of the optimiser.
        if name in takes and name not in own and takes[name].default is inspect.Parameter.empty and node:
            own[name] = {**node, "_partial_": True}
    return build(own, key="model")


def word_vectors(settings: dict[str, Any], data: DataModule) -> np.ndarray:
    """The vectors that ``model.vectors`` names for the data's vocabulary; ``settings`` get their length.

    Raises:
        UserError: The data has no words in order, or the vectors are not to be had, or of another length.
    """
    from pipeline.data.text.vectors import vectors_of

    name, words = str(settings["vectors"]), getattr(data.encoder, "words", None)
    if words is None or data.spec.input != "tokens" or data.spec.unordered:
        raise UserError(f"model.vectors={name} needs texts as words in their order; set data.input=tokens")
    found = vectors_of(name, words, data.data_dir)
    asked = settings.get("embedding")
    if asked is not None and asked != found.shape[1] and not _as_shipped(settings, asked):
        raise UserError(
            f"model.embedding={asked}, but the vectors of {name} have {found.shape[1]} numbers: leave it out"
        )
    settings["embedding"] = found.shape[1]
    return found


def _as_shipped(settings: dict[str, Any], width: int) -> bool:
    target = resolve(settings["_target_"], "model._target_")
    default = inspect.signature(target).parameters["embedding"].default
    return bool(width == default)


def begin_with(model: BaseModule, vectors: np.ndarray) -> None:
    """Give a model's embedding the vectors of its words; what has none keeps small random numbers.

    Args:
        model: Model with an embedding of padding, unknown words, and the vocabulary, in this order.
        vectors: (words, length), NaN where a word has none.
    """
    table: torch.nn.Embedding | torch.nn.EmbeddingBag | None = getattr(
        model, "embedding", getattr(model, "embeddings", None)
    )
    if table is None:
        raise UserError("model.vectors is for models that embed words: model=lstm, gru, rnn or fasttext")
    known = torch.from_numpy(~np.isnan(vectors[:, 0]))
    scale = float(np.nanstd(vectors))
    with torch.no_grad():
        weight = table.weight
        weight[1:] *= scale / float(weight[1:].std())
        first = model.spec.vocabulary - len(vectors)
        rows = torch.nonzero(known)[:, 0]
        weight[first + rows] = torch.from_numpy(vectors)[rows].to(weight.dtype)


def optimisation(plan: FitPlan) -> Optimisation:
    """How a model of this package is optimised."""
    scheduler = dict(plan.scheduler) if plan.scheduler else None
    interval = scheduler.pop("interval", "epoch") if scheduler else "epoch"
    monitor = scheduler.pop("monitor", None) if scheduler else None
    epochs = int(plan.trainer.get("max_epochs") or 1)
    # A length that was given holds whatever the time.
    of_the_fit = scheduler is not None and "auto" in scheduler.values()

    def make_scheduler(optimiser: torch.optim.Optimizer, steps: int) -> Any:
        assert scheduler is not None
        length = steps if interval == "step" or epochs < 0 else epochs
        arguments = {key: length if value == "auto" else value for key, value in scheduler.items()}
        if "max_lr" in arguments:
            # One-cycle knows of one rate alone, where the groups have shares of it.
            arguments["max_lr"] = [arguments["max_lr"] * share for share in _shares(optimiser)]
        return build(arguments, optimiser, key="scheduler")

    def make_optimizer(groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        every = [parameter for group in groups for parameter in group.parameters]
        fused = {"fused": True} if _can_be_fused(plan, every) else {}
        parameters: list[Any] = every
        if any(group.rate != 1.0 for group in groups):
            rate = float(plan.optimizer["lr"])
            parameters = [{"params": group.parameters, "lr": rate * group.rate} for group in groups]
        return cast(torch.optim.Optimizer, build({**plan.optimizer, **fused}, parameters, key="optimizer"))

    return Optimisation(
        optimizer=make_optimizer,
        scheduler=make_scheduler if scheduler else None,
        interval=interval,
        monitor=monitor,
        seconds=seconds_of(plan.trainer.get("max_time")) if of_the_fit else None,
        accumulate=int(plan.trainer.get("accumulate_grad_batches") or 1),
        ema=plan.trainer.get("ema"),
        clip_value=plan.trainer.get("gradient_clip_val"),
        clip_algorithm=plan.trainer.get("gradient_clip_algorithm") or "norm",
    )


def _shares(optimiser: torch.optim.Optimizer) -> list[float]:
    """The rate of each group of parameters beside that of the first."""
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    return [rate / rates[0] for rate in rates]


def _can_be_fused(plan: FitPlan, parameters: Sequence[torch.Tensor]) -> bool:
    """Whether nothing that was asked for speaks against the optimiser's fused form."""
    asked = any(name in plan.optimizer for name in ("fused", "foreach", "differentiable"))
    # Lightning's mixed precision refuses to clip for optimisers that can unscale gradients themselves.
    clips = plan.trainer.get("gradient_clip_val") is not None
    at_home = all(parameter.device.type in _HAS_FUSED for parameter in parameters)
    return plan.optimizer["_target_"] in _FUSED and not asked and not clips and at_home


def monitored(plan: FitPlan, data: DataModule) -> tuple[str | None, str]:
    """The metric that decides which epoch is best and whether ``max`` or ``min``; None where nothing is held out.

    Raises:
        UserError: The metric is unknown, and ``objective.direction`` does not say which way it is better.
    """
    asked = plan.checkpoint.monitor if plan.checkpoint.monitor != "auto" else plan.metric
    if asked is None:
        return None, data.spec.monitor[1]
    metric, mode = judged_by(plan, data.spec, asked)
    if "auto" not in (asked, plan.direction) and (warning := metrics.contradiction(metric, plan.direction)):
        log.warning("objective.direction=%s: %s", plan.direction, warning)
    if data.validation is None and metric.startswith("val/"):
        return None, mode
    return metric, mode


def judged_by(plan: FitPlan, spec: Spec, asked: str = "auto") -> tuple[str, str]:
    """A metric and whether ``max`` or ``min`` of it is better: the one that is asked for, else what the data calls for.

    Raises:
        UserError: The metric is unknown, and ``objective.direction`` does not say which way it is better.
    """
    if asked == "auto":
        return spec.monitor
    if plan.direction == "auto":
        return asked, metrics.direction(asked)
    return asked, "max" if plan.direction == "maximize" else "min"


def parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters; those of a lazy layer that has not seen a batch do not count yet."""
    known = (p for p in model.parameters() if not torch.nn.parameter.is_lazy(p))
    return sum(parameter.numel() for parameter in known if parameter.requires_grad)
