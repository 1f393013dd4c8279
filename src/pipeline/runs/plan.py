"""The door: a checked configuration becomes frozen plain values here, once a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.training.plan import CheckpointPlan, FitPlan, Node


@dataclass(frozen=True)
class RunPlan:
    """One fit and its test.

    Args:
        name: Name of the run.
        data: The ``data`` node.
        model: The ``model`` node.
        fit: How the model is trained.
        train: Whether there is a training.
        test: Whether there is a test at the end.
        start_from: Checkpoint whose weights the training begins with, None for fresh ones.
        resumes: Whether the run goes on where an earlier process left it.
        bag_folds: How many folds the model is fitted to beside its first fit: ``auto`` by the data, None for none.
    """

    name: str
    data: Node
    model: Node
    fit: FitPlan
    train: bool = True
    test: bool = True
    start_from: str | None = None
    resumes: bool = False
    bag_folds: int | str | None = None

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.fit.seed

    def changed(self, **nodes: dict[str, Any]) -> RunPlan:
        """The plan with some settings of the fit changed: ``changed(trainer={"max_epochs": 3})``."""
        merged: dict[str, Any] = {
            name: {**getattr(self.fit, name), **settings} for name, settings in nodes.items()
        }
        return replace(self, fit=replace(self.fit, **merged))


def plan_of(cfg: DictConfig, threads: Iterable[Sequence[int]] = ()) -> RunPlan:
    """What a composed and checked configuration asks for.

    Args:
        cfg: Configuration.
        threads: Pairs of an optimiser step and a number of threads, where a fit is repeated.
    """
    return RunPlan(
        name=str(cfg.name),
        data=plain(cfg.data),
        model=plain(cfg.model),
        fit=replace(fit_plan(cfg), threads=tuple((int(step), int(count)) for step, count in threads)),
        train=bool(cfg.train),
        test=bool(cfg.test),
        start_from=None if cfg.ckpt_path is None else str(cfg.ckpt_path),
        resumes=cfg.resume is not None,
        bag_folds=cfg.task.get("bag_folds"),
    )


def fit_plan(cfg: DictConfig) -> FitPlan:
    """The part of :func:`plan_of` that says how a model is trained."""
    checkpoint = cfg.checkpoint
    return FitPlan(
        seed=int(cfg.seed),
        trainer=plain(cfg.trainer),
        optimizer=plain(cfg.optimizer),
        scheduler=plain(cfg.scheduler),
        callbacks=plain(cfg.callbacks) or {},
        loggers=plain(cfg.logger) or {},
        checkpoint=CheckpointPlan(
            checkpoint.monitor, checkpoint.every_n_steps, float(checkpoint.every_seconds)
        ),
        metric=str(cfg.objective.metric),
        direction=str(cfg.objective.direction),
    )


def plain(node: Any) -> Any:
    """A node of the configuration as plain Python values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
