"""Experiment-tracked training: Hydra composes, Lightning trains, MLflow records, Optuna improves, DVC reproduces."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

from pipeline import dynamo_inside, torchmetrics_inside

if TYPE_CHECKING:
    from pipeline.api import load, sweep, train

# Before anything here imports Lightning.
dynamo_inside.put_off()
torchmetrics_inside.put_off()

__all__ = ["__version__", "load", "sweep", "train"]


def __getattr__(name: str) -> Any:
    # Nothing heavy is imported until it is used.
    if name in ("load", "sweep", "train"):
        from pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
