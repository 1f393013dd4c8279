"""A learning-rate range test: raise the rate step by step over one short fit and see where the loss falls fastest."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from pipeline.errors import Diverged
from pipeline.runs.own_loop import need_spec, trains_here
from pipeline.runs.plan import plan_of

SMOOTHING = 0.9
STOP_AT = 4.0
"""The test ends once the smoothed loss is so many times the best one: what follows is divergence."""


@dataclass
class RangeTest:
    """The loss at every learning rate tried.

    Args:
        rates: Learning rates, rising.
        losses: Training loss of the batch at each rate.
        suggestion: A learning rate to start with, None where the loss never fell.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float | None


def find_lr(cfg: DictConfig) -> RangeTest:
    """Train ``task.steps`` steps with rates from ``task.min_lr`` to ``task.max_lr``, equally spaced in logarithm.

    It is a fit like any other, with its precision, accumulation and clipping; only the schedule is another one.

    Raises:
        UserError: The model is a LightningModule that trains itself.
    """
    import pytorch_lightning as pl

    from pipeline.config.checks import check_classes
    from pipeline.runs.finished import data_of
    from pipeline.training.building import build_model, optimisation
    from pipeline.training.features import begin_solved, learnt_from, solves_first
    from pipeline.training.module import TrainingModule
    from pipeline.training.range_test import RangeWatch, rising
    from pipeline.training.threads import Threads
    from pipeline.training.trainer import build_trainer

    check_classes(cfg)
    plan = plan_of(cfg)
    low, high, steps = float(cfg.task.min_lr), float(cfg.task.max_lr), int(cfg.task.steps)
    rates = np.geomspace(low, high, steps).tolist()
    data = data_of(cfg)
    pl.seed_everything(plan.seed, verbose=False)
    model = build_model(plan.model, data, plan.fit)
    if not trains_here(model):
        raise need_spec("task=find_lr", model)
    data = learnt_from(data, model, plan.fit.trainer)
    if solves_first(model):
        begin_solved(data, model, plan.fit.trainer)
    watch = RangeWatch(STOP_AT, SMOOTHING, from_step=steps // 20)
    settings = {**plan.fit.trainer, "max_epochs": -1, "max_steps": steps, "profiler": None}
    module = TrainingModule(model, rising(optimisation(plan.fit), rates))
    with tempfile.TemporaryDirectory() as folder, Threads(settings, model, data.batch_size):
        trainer = build_trainer(
            settings, model, Path(folder), callbacks=[watch], logger=False, enable_checkpointing=False
        )
        with suppress(Diverged):
            trainer.fit(module, data.training_loader(plan.seed))
    losses = watch.losses
    return RangeTest(rates[: len(losses)], losses, suggest(rates[: len(losses)], losses))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest, to two digits; None where it never falls.

    Args:
        rates: Learning rates, rising and equally spaced on a log scale.
        losses: Loss of one batch at each rate.
    """
    smoothed = smooth_both_ways(losses)
    if len(smoothed) < 3:
        return None
    lowest = int(np.argmin(smoothed))
    slope = np.gradient(smoothed)[: lowest + 1]
    # The loss of single batches wanders: a fall counts if it is more than that.
    if lowest < 2 or smoothed[0] - smoothed[lowest] < 0.02 * abs(smoothed[0]):
        return None
    return float(f"{rates[int(np.argmin(slope))]:.1e}")


def smooth_both_ways(values: Sequence[float]) -> np.ndarray:
    """An exponential mean forwards and backwards: smooth, and not late."""
    found = np.asarray(values, dtype=np.float64)
    for _ in range(2):
        total, weight, means = 0.0, 0.0, []
        for value in found:
            total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1
            means.append(total / weight)
        found = np.asarray(means)[::-1]
    return found


def draw(result: RangeTest, path: Path) -> Path:
    """The loss against the rate, with the suggestion marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(result.rates, result.losses, color="#b9cbdd", linewidth=1, label="each batch")
    axis.plot(result.rates, smooth_both_ways(result.losses), color="#4878a8", label="smoothed")
    if result.suggestion is not None:
        axis.axvline(result.suggestion, color="#d1611f", label=f"suggestion {result.suggestion:g}")
    # What follows on divergence would press all else into a line.
    top, highest = 2 * max(smooth_both_ways(result.losses)[0], 0.0), max(result.losses)
    if 0 < top < highest:
        axis.set_ylim(min(0.0, min(result.losses)), top)
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axis.legend()
    figure.savefig(path, dpi=130)
    return path
