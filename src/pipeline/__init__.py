"""Experiment-tracked training: Hydra composes, Lightning trains, MLflow records, Optuna improves, DVC reproduces."""

__version__ = "0.1.0"
