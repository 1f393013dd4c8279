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
from pipeline.models.trees import Trees
from pipeline.runs.alone import fit_alone
from pipeline.runs.plan import RunPlan, plan_of

log = logging.getLogger(__name__)

FOLDS = (8, 5, 3)
"""Folds to choose from, by the time that is left."""
MOST_MEMBERS = 10
_LEAST_TREES = 60
_AROUND = 0.3
"""Seconds around a fit."""
_SHORTEST, _EASILY = 0.4, 1.2
"""A network is shortened to this share at most; one that has so many times its usual time is not."""
_ENOUGH_FOLDS = 5
"""With fewer folds, one model that has learnt from all rows is better than those that lack a third of them."""
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

    The quick ones come first: what they leave is the time of the slow ones, which can be shortened.

    Args:
        rungs: The rungs.
        data: The data; its training and validation rows are dealt out anew.
        folds: Number of folds.
        left: Seconds that are left.

    Returns:
        Those that have a model for each fold.
    """
    found = []
    views = list(data.refolded(folds))
    for rung in sorted(rungs, key=seconds_of_fit):
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
                model = fit_alone(
                    _of_a_fold(plan, len(views), each, rung.result.seconds["fit"]), view, Path(folder)
                )
            except Diverged as error:
                log.warning("%s diverged on a fold and is left out: %s", rung.name, error)
                return None
        models.append(model)
        rows.append(held_out)
        parts.append(answers_of(model, view.validation))
    order = torch.cat(rows).argsort()
    return Bag(rung, models, torch.cat(parts)[order])


def seconds_of_fit(rung: Rung) -> float:
    """What a fit of a rung's model took, and what is around it."""
    assert rung.result is not None
    return float(rung.result.seconds["fit"]) + _AROUND


def least_seconds_of_fit(rung: Rung) -> float:
    """What a fit of a rung's model takes at least: a network's may be shortened."""
    assert rung.cfg is not None
    return seconds_of_fit(rung) * (_SHORTEST if _shortenable(plan_of(rung.cfg)) else 1.0)


def _shortenable(plan: RunPlan) -> bool:
    """Whether the plan is of a model that is trained in steps, to the end of so many epochs."""
    kind = str(plan.model["_target_"]).rpartition(".")[2]
    at_once = kind in ("Forest", "Boosting") or plan.model.get("solver") == "exact"
    return not at_once and isinstance(plan.fit.trainer.get("max_epochs"), int)


def _of_a_fold(plan: RunPlan, folds: int, seconds: float, usual: float) -> RunPlan:
    """The plan with a limit of time, where it would be near it, and with a forest's trees shared out to the folds.

    A network has fewer epochs then, so that its schedule ends in time.
    """
    if _shortenable(plan) and seconds < _EASILY * usual:
        epochs = max(1, int(plan.fit.trainer["max_epochs"] * seconds / (_EASILY * usual)))
        plan = plan.changed(trainer={"max_epochs": epochs})
    if str(plan.model["_target_"]).endswith(".Forest"):
        trees = max(_LEAST_TREES, 2 * int(plan.model["n_estimators"]) // folds)
        plan = replace(plan, model={**plan.model, "n_estimators": trees})
    return plan if seconds > 4 * usual else plan.changed(trainer={"max_time": in_full(seconds)})


def _fixed(plan: RunPlan, bag: Bag) -> RunPlan | None:
    """The plan of a fit to all rows at once, where nothing is held out to stop it; None for models that need that."""
    assert bag.rung.result is not None
    kind = str(plan.model["_target_"]).rpartition(".")[2]
    settings: dict[str, Any] = {}
    if kind == "Linear" and plan.model.get("solver") == "exact":
        settings = {"alpha": bag.rung.result.model["alpha"]}
    elif kind == "Boosting" and len(bag.models) < _ENOUGH_FOLDS:
        # As many trees as the folds' own, and more, since more rows bear more.
        rounds = [len(model.root) / model.spec.outputs for model in bag.models if isinstance(model, Trees)]
        grown = len(bag.models) / (len(bag.models) - 1)
        settings = {"n_estimators": max(1, round(grown * sum(rounds) / len(rounds)))}
    elif kind != "Forest":
        return None
    return replace(plan, model={**plan.model, **settings})


def _final(bag: Bag, data: TableData, left: Callable[[], float]) -> list[BaseModule]:
    """The models that answer for a bag: those of its folds, or one that has learnt from all rows."""
    assert bag.rung.cfg is not None and bag.rung.result is not None
    plan = _fixed(plan_of(bag.rung.cfg), bag)
    if plan is None or left() < 2 * float(bag.rung.result.seconds["fit"]):
        return bag.models
    with tempfile.TemporaryDirectory() as folder:
        return [fit_alone(plan, data.pooled(), Path(folder))]


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


@dataclass(eq=False)
class Blended:
    """Several bags as one model.

    Args:
        model: Weighted mean of their models.
        answers: Its answers for the rows that each model has not seen, (rows, classes or 1).
        parts: How many parts of it each rung has.
        best: The bag that is best alone.
    """

    model: Blend
    answers: Tensor
    parts: dict[str, int]
    best: Bag


def blended(bags: Sequence[Bag], data: TableData, left: Callable[[], float]) -> Blended:
    """The mean of the bags' models with the weights that are best for the rows they have not seen.

    Args:
        bags: At least one.
        data: The data.
        left: Seconds that are left.
    """
    loss = loss_of(data, data.pooled_targets)
    weights = greedy_weights([bag.answers for bag in bags], loss, MOST_MEMBERS)
    taken = [(bag, weight) for bag, weight in zip(bags, weights, strict=True) if weight]
    final = [(_final(bag, data, left), weight) for bag, weight in taken]
    models = [model for some, _ in final for model in some]
    shares = [weight / len(some) for some, weight in final for _ in some]
    answers = torch.stack([bag.answers * weight for bag, weight in taken]).sum(0) / sum(weights)
    best = min(bags, key=lambda bag: loss(bag.answers))
    parts = {bag.rung.name: weight for bag, weight in taken}
    return Blended(Blend.of(models, shares), answers, parts, best)
