"""A learning-rate range test: raise the rate step by step over one short fit and see where the loss falls fastest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.core.module import DataModule
    from pipeline.models.base import BaseModule

SMOOTHING = 0.9
STOP_AT = 4.0
"""The test ends once the smoothed loss is so many times the best one: what follows is divergence."""


@dataclass
class RangeTest:
    """The loss at every learning rate tried.

    Args:
        rates: learning rates, rising.
        losses: training loss of the batch at each.
        suggestion: a learning rate to start with, None where the loss never fell.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float | None


def find_lr(cfg: DictConfig) -> RangeTest:
    """Train ``task.steps`` steps with rates from ``task.min_lr`` to ``task.max_lr``, equally spaced in logarithm."""
    import pytorch_lightning as pl
    import torch

    from pipeline.config.checks import check_classes
    from pipeline.runs.finished import data_of
    from pipeline.training.building import build_model
    from pipeline.training.trainer import Threads

    check_classes(cfg)
    low, high, steps = float(cfg.task.min_lr), float(cfg.task.max_lr), int(cfg.task.steps)
    data = data_of(cfg)
    pl.seed_everything(int(cfg.seed), verbose=False)
    model = build_model(cfg, data).train()
    if torch.cuda.is_available() and str(cfg.trainer.accelerator) != "cpu":
        model.to("cuda")
    rates = np.geomspace(low, high, steps).tolist()
    losses = []
    smooth, best = 0.0, math.inf
    with Threads(cfg.trainer, model, data.batch_size):
        for step, loss in enumerate(_losses(model, data, rates), start=1):
            if not math.isfinite(loss):
                break
            losses.append(loss)
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * loss
            # Without its bias towards the zero it began with.
            corrected = smooth / (1 - SMOOTHING**step)
            best = min(best, corrected)
            if step > steps // 20 and corrected > STOP_AT * best:
                break
    return RangeTest(rates[: len(losses)], losses, suggest(rates[: len(losses)], losses))


def _losses(model: BaseModule, data: DataModule, rates: Sequence[float]) -> Iterator[float]:
    """Train a step at each rate and give the loss before it."""
    import torch

    plan = model._plan()
    optimizer = plan.optimizer([parameter for parameter in model.parameters() if parameter.requires_grad])
    batches = _batches(data)
    state: Any = None
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, y = (part.to(model.device) for part in next(batches))
        if model.spec.stateful:
            logits, state = model.forward_state(x, state)
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        else:
            logits = model(x)
        loss = model.loss(logits, y)
        optimizer.zero_grad()
        (loss + model._penalty() if model.l1 or model.l2 else loss).backward()
        if plan.clip_value is not None:
            clip = (
                torch.nn.utils.clip_grad_norm_
                if plan.clip_algorithm == "norm"
                else torch.nn.utils.clip_grad_value_
            )
            clip(model.parameters(), plan.clip_value)
        optimizer.step()
        yield float(loss.detach())


def _batches(data: DataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches without end, in the order of a run's epochs; pieces of streams start again each time."""
    loader = data.train_dataloader()
    while True:
        for chunk in loader:
            yield from chunk
        loader.epoch += 1


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest, to two digits; None where it never falls.

    Args:
        rates: rising, equally spaced on a log scale.
        losses: of one batch each.
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
