"""Models fitted once without each fold, and how they answer together on the rows that they have not seen.

Every row that is not of the test split is held out once: weights are chosen on all of them, not on the few of one
validation split, and each model is stopped by rows of its own.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.data.core.module import DataModule
from pipeline.data.tables.table import TableData
from pipeline.errors import Diverged
from pipeline.ladder.rungs import Rung
from pipeline.models.base import BaseModule
from pipeline.models.blend import Blend, greedy_weights
from pipeline.runs.alone import fit_alone
from pipeline.runs.plan import RunPlan, plan_of

log = logging.getLogger(__name__)

FOLDS = (8, 5, 3)
"""Folds to choose from, by the time that is left."""
MOST_MEMBERS = 10
_ROWS = 4096


@dataclass(eq=False)
class Bag:
    """One rung's model, fitted once without each fold.

    Args:
        rung: The rung.
        models: One for each fold.
        answers: Probabilities or numbers for each row by the model that has not seen it, (rows, classes or 1).
    """

    rung: Rung
    models: list[BaseModule]
    answers: Tensor


def folds_in(seconds: float, fits: Sequence[float]) -> int:
    """How many folds the time allows for fits that took so many seconds each; 0 where not even the fewest fit in."""
    return next((folds for folds in FOLDS if folds * sum(fits) <= seconds), 0)


def bagged(rungs: Sequence[Rung], data: TableData, folds: int, left: Callable[[], float]) -> list[Bag]:
    """Fit the model of each rung once without each fold, as long as there is time.

    Args:
        rungs: The most promising first.
        data: The data; its training and validation rows are dealt out anew.
        folds: Number of folds.
        left: Seconds that are left.

    Returns:
        Those that have a model for each fold.
    """
    found = []
    views = list(data.refolded(folds))
    for rung in rungs:
        began = time.monotonic()
        bag = _bag(rung, views, left)
        if bag is None:
            log.info("%s was not fitted to each of %d folds: its time ran out", rung.name, folds)
            continue
        log.info("%s: fitted to %d folds in %.0f s", rung.name, folds, time.monotonic() - began)
        found.append(bag)
    return found


def _bag(rung: Rung, views: Sequence[tuple[DataModule, Tensor]], left: Callable[[], float]) -> Bag | None:
    assert rung.cfg is not None and rung.result is not None
    plan, models, rows, parts = plan_of(rung.cfg), [], [], []
    for number, (view, held_out) in enumerate(views):
        each = left() / (len(views) - number)
        if each < 1:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = fit_alone(_within(plan, each, rung.result.seconds["fit"]), view, Path(folder))
            except Diverged as error:
                log.warning("%s diverged on a fold and is left out: %s", rung.name, error)
                return None
        models.append(model)
        rows.append(held_out)
        parts.append(answers_of(model, view.validation))
    order = torch.cat(rows).argsort()
    return Bag(rung, models, torch.cat(parts)[order])


def _within(plan: RunPlan, seconds: float, usual: float) -> RunPlan:
    """The plan with a limit of time, where it would be near it."""
    if seconds > 4 * usual:
        return plan
    trainer = {**plan.fit.trainer, "max_time": in_full(seconds)}
    return replace(plan, fit=replace(plan.fit, trainer=trainer))


def in_full(seconds: float) -> str:
    """Seconds as ``trainer.max_time`` takes them: DD:HH:MM:SS, at least one second."""
    whole = max(1, int(seconds))
    return f"{whole // 86400:02d}:{whole // 3600 % 24:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def answers_of(model: BaseModule, split: Any) -> Tensor:
    """Probabilities or numbers for every row of a split, in order."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model.objective.probabilities(model(split.take(rows)[0].to(model.device)).float().cpu())
            for rows in torch.arange(len(split)).split(_ROWS)
        ]
    return torch.cat(parts).reshape(len(split), -1)


def loss_of(data: DataModule, targets: Tensor) -> Callable[[Tensor], float]:
    """What weights are chosen by: the mean absolute error of numbers; of classes the log loss."""
    if data.spec.task == "regression":
        true = targets.reshape(len(targets), -1).double()
        return lambda answers: float((answers.double() - true).abs().mean())
    labels = targets.reshape(-1).long()

    def log_loss(answers: Tensor) -> float:
        chosen = answers.double().gather(1, labels[:, None]).clamp_min(1e-7)
        return float(-chosen.log().mean())

    return log_loss


def blended(bags: Sequence[Bag], data: TableData) -> tuple[Blend, Tensor, dict[str, int]]:
    """The mean of the bags' models with the weights that are best for the rows they have not seen.

    Returns:
        The model, its answers for those rows, and how many parts of it each rung has.
    """
    targets = data.pooled_targets
    weights = greedy_weights([bag.answers for bag in bags], loss_of(data, targets), MOST_MEMBERS)
    taken = [(bag, weight) for bag, weight in zip(bags, weights, strict=True) if weight]
    models = [model for bag, _ in taken for model in bag.models]
    shares = [weight / len(bag.models) for bag, weight in taken for _ in bag.models]
    answers = torch.stack([bag.answers * weight for bag, weight in taken]).sum(0) / sum(weights)
    return Blend.of(models, shares), answers, {bag.rung.name: weight for bag, weight in taken}
