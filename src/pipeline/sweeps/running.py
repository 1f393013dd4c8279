"""What lies between a sweep and the thing it runs: the hooks that a trial gets, and what it must return."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import optuna
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.tracking import Reference


@dataclass
class Context:
    """What a trial is told and may call.

    Args:
        number: Number of the trial.
        metrics: Metrics that are optimised; a report must hold them.
        on_report: Function called with a step (epoch or fold, from 0) and metrics; raises `Pruned` to end the trial.
        by_fold: Whether to report after each fold instead of each epoch.
        parent: Tracking run to nest under.
        tags: Tags of the trial's tracking run.
        max_parameters: Largest number of parameters; a model with more is refused (`TooLarge`).
        settings: What tells the trial from the others, in few words.
    """

    number: int
    metrics: list[str]
    on_report: Callable[[int, Mapping[str, float]], None]
    by_fold: bool = False
    parent: Reference | None = None
    tags: dict[str, str] = field(default_factory=dict)
    max_parameters: int | None = None
    settings: str = ""


@dataclass
class Outcome:
    """What a trial came to.

    Args:
        metrics: Metrics by name, the objectives among them.
        baseline: Metrics of the common-sense predictor.
        run_id: Id of the tracking run.
    """

    metrics: dict[str, float]
    baseline: dict[str, float] = field(default_factory=dict)
    run_id: str | None = None


Runner = Callable[[DictConfig, Context], Outcome]


class Pruned(optuna.TrialPruned):
    """The trial is worse than the others and ends here; its tracked run is finished, not failed."""

    tracking_status = "FINISHED"


class TooLarge(UserError):
    """The model breaks the sweep's limit; it was not trained.

    Args:
        parameters: Number of parameters of the model.
        limit: Largest number that it may have.
    """

    def __init__(self, parameters: int, limit: int) -> None:
        super().__init__(f"{parameters:,} parameters, more than {limit:,}")
        self.parameters = parameters
        self.limit = limit


class BadObjective(Exception):
    """A trial's objective is missing, NaN or infinite."""


def objective_values(metrics: Mapping[str, float], names: list[str]) -> list[float]:
    """The objectives of a trial.

    Raises:
        BadObjective: An objective is missing, NaN or infinite.
    """
    values = []
    for name in names:
        if name not in metrics:
            known = ", ".join(sorted(metrics)) or "no metric"
            raise BadObjective(f"it did not measure {name} (it has {known})")
        if not math.isfinite(metrics[name]):
            raise BadObjective(f"{name} is {metrics[name]}")
        values.append(float(metrics[name]))
    return values


def load_function(dotted: str) -> Callable[..., Any]:
    """The function of a dotted name (given by the program, never by a configuration)."""
    module, _, name = dotted.rpartition(".")
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def as_outcome(result: Any) -> Outcome:
    """What a task returned as an outcome: a run result, metrics, a number, or nothing."""
    if isinstance(result, Outcome):
        return result
    if isinstance(result, Mapping):
        return Outcome({str(key): float(value) for key, value in result.items()})
    if isinstance(result, int | float):
        return Outcome({"objective": float(result)})
    metrics = getattr(result, "metrics", None)
    if isinstance(metrics, Mapping):
        return Outcome(
            dict(metrics), dict(getattr(result, "baseline", None) or {}), getattr(result, "run_id", None)
        )
    return Outcome({})


def read_search_space_function(dotted: str | None) -> Callable[[DictConfig, Any], None] | None:
    """`hydra.sweeper.custom_search_space`: a function of the configuration and Optuna's trial that suggests more.

    Raises:
        UserError: The name is not allowed or is no function.
    """
    if dotted is None:
        return None
    from pipeline.config import resolve

    found = resolve(dotted, "hydra.sweeper.custom_search_space")
    if isinstance(found, type):
        raise UserError(f"hydra.sweeper.custom_search_space={dotted}: expected a function(config, trial).")
    return cast(Callable[[DictConfig, Any], None], found)


def fresh_subdirectory(parent: Path, name: str) -> str:
    """The name of a directory that nothing was written to yet: `7`, or `7-attempt2` where a first attempt was lost."""
    attempt, candidate = 1, name
    while (parent / candidate).exists():
        attempt += 1
        candidate = f"{name}-attempt{attempt}"
    return candidate
