"""What a sweep optimises, and in which direction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipeline import metrics as registry
from pipeline.config.together import OF_TEST
from pipeline.errors import UserError

log = logging.getLogger(__name__)

_DIRECTIONS = ("minimize", "maximize")
# What a trial knows beside the metrics of its epochs; worth trading off against those.
EXTRA = ("parameters", "fit_seconds")


def read_objectives(config: DictConfig, metrics: Any, direction: Any) -> tuple[list[str], list[str]]:
    """The metrics to optimise and their directions.

    Args:
        config: Configuration of the experiment, for its `objective`. Where that is `auto` the data is prepared, which
            decides.
        metrics: `hydra.sweeper.metrics`: several objectives, or null for the experiment's.
        direction: `hydra.sweeper.direction`: one, a list, or null for the experiment's.

    Raises:
        UserError: A metric is one of the test split, a direction is unknown or is missing for an unknown metric, or
            there are not as many directions as metrics.
    """
    names = _strings(metrics) or [str(config.objective.metric)]
    for name in names:
        _refuse_test_metric(config, name)
    given = [_direction(entry) for entry in _strings(direction)]
    if given and len(given) != len(names):
        raise UserError(
            f"hydra.sweeper.direction has {len(given)} directions for {len(names)} metrics ({', '.join(names)});"
            " name the metrics in hydra.sweeper.metrics=[val/accuracy,parameters]."
        )
    names = [_of_data(config) if name == "auto" else name for name in names]
    directions = given or [_way(config, name) for name in names]
    for name, way in zip(names, directions, strict=True):
        if warning := registry.contradiction(name, way):
            log.warning(
                "%s=%s: %s", "hydra.sweeper.direction" if given else "objective.direction", way, warning
            )
    return names, directions


def _strings(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, ListConfig):
        value = OmegaConf.to_container(value)
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    return [str(getattr(entry, "name", entry)) for entry in values]


def _refuse_test_metric(config: DictConfig, name: str) -> None:
    if of_test := OF_TEST.match(name):
        raise UserError(
            f"A sweep cannot optimise {name}: the test split is read once, at the end, so nothing may be chosen by it."
            f" Use val{of_test[1] or '/'}{name[of_test.end() :] or 'loss'}."
        )
    # What a LightningModule of one's own logs is known once it has logged it.
    if trains_itself(config):
        return
    if name != "auto" and name not in EXTRA and not name.startswith(("val/", "train/")):
        raise UserError(
            f"A sweep cannot optimise {name}: expected a metric such as val/accuracy or val/loss,"
            f" or {' or '.join(EXTRA)}."
        )


def _direction(name: str) -> str:
    if name not in _DIRECTIONS:
        raise UserError(f"hydra.sweeper.direction={name}: expected {' or '.join(_DIRECTIONS)}.")
    return name


def _way(config: DictConfig, name: str) -> str:
    configured = str(config.objective.direction)
    return configured if configured != "auto" and name not in EXTRA else f"{registry.direction(name)}imize"


def trains_itself(config: DictConfig) -> bool:
    """Whether the model is a person's own LightningModule."""
    target = str(config.model.get("_target_"))
    if target.startswith("pipeline."):
        return False
    from pipeline.config import resolve
    from pipeline.training.libraries import library_of

    return library_of(resolve(target, "model._target_")) is not None


def _of_data(config: DictConfig) -> str:
    from pipeline.runs.plan import plain
    from pipeline.training.building import build_data

    if trains_itself(config):
        raise UserError(
            f"A sweep of {config.model._target_}, a LightningModule of its own, needs the name of a metric that it "
            "logs: objective.metric=val/acc"
        )
    data = build_data(plain(config.data), plain(config.model))
    metric = data.spec.monitor[0]
    if data.validation is None and not config.data.get("folds"):
        raise UserError(
            f"A sweep needs something held out to compare trials by ({metric}), but data.validation_fraction is 0;"
            " set it above 0, or data.folds=4."
        )
    return metric
