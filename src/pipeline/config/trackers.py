"""Which trackers a run is recorded in, and whether their packages are there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pipeline.errors import UserError

BESIDE_MLFLOW = {"wandb": "wandb", "trackio": "trackio", "comet": "comet_ml"}
"""Trackers that a run's journal can be sent to beside MLflow, with the package of each."""


def trackers_of(logger: Mapping[str, Any]) -> tuple[str, ...]:
    """The trackers that a run's journal goes to: ``mlflow``, and those of :data:`BESIDE_MLFLOW`.

    Args:
        logger: The ``logger`` settings. A class of Lightning's under one of the names is no tracker of ours.
    """
    others = [name for name in BESIDE_MLFLOW if logger.get(name) is True]
    return (*(["mlflow"] if logger.get("mlflow") else []), *others)


def refuse_missing(logger: Mapping[str, Any]) -> None:
    """Name the command that installs what a tracker needs.

    Args:
        logger: The ``logger`` settings.

    Raises:
        UserError: The package of a tracker is not installed.
    """
    for name in trackers_of(logger):
        package = BESIDE_MLFLOW.get(name)
        if package and find_spec(package) is None:
            raise UserError(
                f"logger={name} needs the package {package}: pip install 'hydra-lightning-pipeline[{name}]'"
            )
