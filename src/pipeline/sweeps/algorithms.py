"""Samplers and pruners from the configuration; a trial's values depend on its number, not on who runs it."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from omegaconf import OmegaConf
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from pipeline.config import resolve
from pipeline.config.nearest import suggest
from pipeline.errors import UserError

SAMPLERS = {
    "tpe": "optuna.samplers.TPESampler",
    "random": "optuna.samplers.RandomSampler",
    "grid": "optuna.samplers.GridSampler",
    "qmc": "optuna.samplers.QMCSampler",
    "gp": "optuna.samplers.GPSampler",
    "cmaes": "optuna.samplers.CmaEsSampler",
    "nsgaii": "optuna.samplers.NSGAIISampler",
    "nsgaiii": "optuna.samplers.NSGAIIISampler",
}
PRUNERS = {
    "median": "optuna.pruners.MedianPruner",
    "percentile": "optuna.pruners.PercentilePruner",
    "successive_halving": "optuna.pruners.SuccessiveHalvingPruner",
    "hyperband": "optuna.pruners.HyperbandPruner",
    "wilcoxon": "optuna.pruners.WilcoxonPruner",
    "none": "optuna.pruners.NopPruner",
}
GRID = SAMPLERS["grid"]
WILCOXON = PRUNERS["wilcoxon"]
# These keep one sequence for the whole study: a seed for each trial would take it apart.
_ONE_SEED = ("QMCSampler", "CmaEsSampler")
# Five trials run to their end before any is compared with them. From a tenth of its length on a trial then ends where
# its best value is below those that two thirds of the complete ones had at that epoch. A stricter look, or one in the
# first epochs, saves more of them and often ends the trial that would have been best (benchmarks/pruners.py).
_DEFAULT_PRUNER = {"_target_": PRUNERS["percentile"], "percentile": 66.0, "n_startup_trials": 5}
_WARM_UP = 0.1
_WARM_UP_EPOCHS = 5
"""Epochs without a comparison where it is not known how many there will be."""
# Folds are few, and the mean of those done is compared: one is already worth a look.
_DEFAULT_FOLD_PRUNER = {"_target_": PRUNERS["median"], "n_startup_trials": 4, "n_warmup_steps": 0}

Settings = dict[str, Any]


def read_sampler(configured: Any) -> Settings:
    """`hydra.sweeper.sampler` as `_target_` and arguments: a mapping, a short name (`random`), or null for TPE.

    Raises:
        UserError: The name is unknown, or the class is no sampler.
    """
    settings = _read(configured, SAMPLERS, "hydra.sweeper.sampler") or {"_target_": SAMPLERS["tpe"]}
    _class_of(settings, "hydra.sweeper.sampler", BaseSampler)
    return settings


def read_pruner(
    configured: Any, *, objectives: int, folds: bool, epochs: int | None = None
) -> Settings | None:
    """`hydra.sweeper.pruner` as `_target_` and arguments; None where nothing is pruned.

    Args:
        configured: A mapping, a short name (`hyperband`), null for none, or `auto`: the percentile pruner (the median
            pruner between folds), and none for several objectives.
        objectives: Number of objectives.
        folds: Whether trials are cross-validated, and pruned between folds.
        epochs: Number of epochs of a trial, None where the data decides.

    Raises:
        UserError: The pruner is unknown, or there is one for several objectives.
    """
    settings = _read(configured, PRUNERS, "hydra.sweeper.pruner")
    if settings is None or settings["_target_"] == PRUNERS["none"]:
        return None
    if settings["_target_"] == "auto":
        if objectives > 1:
            return None
        warm_up = _WARM_UP_EPOCHS if epochs is None else math.ceil(_WARM_UP * epochs)
        default = _DEFAULT_FOLD_PRUNER if folds else {**_DEFAULT_PRUNER, "n_warmup_steps": warm_up}
        settings = {**default, **{key: value for key, value in settings.items() if key != "_target_"}}
    if objectives > 1:
        raise UserError(
            f"hydra.sweeper.pruner={settings['_target_']}: with {objectives} objectives nothing can be pruned, since"
            " no one of them says alone that a trial is worse. Leave the pruner out (hydra/sweeper/pruner=none)."
        )
    _class_of(settings, "hydra.sweeper.pruner", BasePruner)
    return settings


def build_sampler(settings: Settings, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial.

    Args:
        settings: Settings as `read_sampler` gives them.
        seed: Seed of the study; the sampler's own `seed` wins over it.
        number: Number of the trial: two workers that draw at the same moment draw differently, and a trial that is run
            again draws the same.

    Raises:
        UserError: The class refuses its arguments.
    """
    if settings["_target_"] == GRID:
        # The points are queued with the trials, so that no two workers take the same: nothing is left to draw.
        return optuna.samplers.RandomSampler(seed)
    target = _class_of(settings, "hydra.sweeper.sampler", BaseSampler)
    arguments = _arguments(settings)
    own = arguments.pop("seed", None)
    seed = seed if own is None else int(own)
    if "seed" in inspect.signature(target).parameters:
        each = target.__name__ not in _ONE_SEED
        arguments["seed"] = int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) if each else seed
    sampler: BaseSampler = _build(target, arguments, "hydra.sweeper.sampler")
    return sampler


def build_pruner(settings: Settings | None) -> BasePruner:
    """The pruner of a study; one that prunes nothing for None.

    Raises:
        UserError: The class refuses its arguments.
    """
    if settings is None:
        return optuna.pruners.NopPruner()
    target = _class_of(settings, "hydra.sweeper.pruner", BasePruner)
    pruner: BasePruner = _build(target, _arguments(settings), "hydra.sweeper.pruner")
    return pruner


def _read(configured: Any, names: Mapping[str, str], key: str) -> Settings | None:
    if OmegaConf.is_config(configured):
        configured = OmegaConf.to_container(configured, resolve=True)
    if configured is None:
        return None
    if isinstance(configured, str):
        configured = {"_target_": configured}
    target = configured.get("_target_")
    if target is None:
        raise UserError(f"{key} has no _target_; expected one of {', '.join(names)}.")
    if target != "auto" and "." not in target:
        if target not in names:
            raise UserError(f"{key}={target} is unknown. {suggest(target, list(names))}".strip())
        target = names[target]
    return {**configured, "_target_": target}


def _class_of(settings: Settings, key: str, base: type) -> type:
    found = resolve(settings["_target_"], f"{key}._target_")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}._target_={settings['_target_']}: expected a {base.__name__} of Optuna.")
    return found


def _arguments(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if not (key.startswith("_") and key.endswith("_"))}


def _build(target: type, arguments: Settings, key: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Settings written for older releases name arguments that today's only warn of.
            warnings.simplefilter("ignore")
            return target(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{key}: {target.__name__} refused its settings: {error}") from error
