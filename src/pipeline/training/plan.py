"""What a fit is to do, as plain values: below the runs nobody sees the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Node = Mapping[str, Any]
"""A node of the configuration: settings by name, ``_target_`` names a class."""


@dataclass(frozen=True)
class CheckpointPlan:
    """When the state is saved, and what the best epoch is.

    Args:
        monitor: Metric that decides, ``auto`` for the objective, None for the last epoch.
        every_n_steps: Number of optimiser steps between two saves within an epoch; None saves at its end alone.
        every_seconds: Least time between two saves at the end of an epoch.
    """

    monitor: str | None = "auto"
    every_n_steps: int | None = None
    every_seconds: float = 1.0


@dataclass(frozen=True)
class FitPlan:
    """How a model is trained.

    Args:
        seed: Seed of the run.
        trainer: The ``trainer`` settings.
        optimizer: The ``optimizer`` node.
        scheduler: The ``scheduler`` node, None for a constant rate.
        callbacks: The ``callbacks`` by name.
        loggers: The ``logger`` settings.
        checkpoint: When the state is saved.
        metric: Metric that the run is judged by, or ``auto``.
        direction: ``maximize``, ``minimize`` or ``auto``.
        threads: Pairs of an optimiser step and a number of threads, where a fit is repeated; empty to find them.
    """

    seed: int
    trainer: Node
    optimizer: Node
    scheduler: Node | None = None
    callbacks: Node = field(default_factory=dict)
    loggers: Node = field(default_factory=dict)
    checkpoint: CheckpointPlan = CheckpointPlan()
    metric: str = "auto"
    direction: str = "auto"
    threads: tuple[tuple[int, int], ...] = ()
