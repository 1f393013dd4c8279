"""Models fitted once without each fold, and how they answer together on the rows that they have not seen.

Every row that is not of the test split is held out once: weights are chosen on all of them, not on the few of one
validation split, and each model is stopped by rows of its own.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config import resolve
from pipeline.data.core.module import DataModule
from pipeline.data.tables.refolding import Folds, Refoldable
from pipeline.errors import Diverged, UserError
from pipeline.ladder.rungs import Rung
from pipeline.models.base import BaseModule
from pipeline.models.blend import Blend, greedy_weights
from pipeline.models.settled import Settled
from pipeline.models.stack import Stack
from pipeline.models.trees import Forest, Trees
from pipeline.runs import beside
from pipeline.runs.alone import fit_alone
from pipeline.runs.folded import answers_of, fitted_to, unseen_answers
from pipeline.runs.plan import RunPlan, plan_of
from pipeline.training.at_once import at_once_with
from pipeline.training.judging import metric_by, metric_of
from pipeline.training.stopping import in_full

log = logging.getLogger(__name__)

FOLDS = (8, 5, 3)
"""Folds to choose from, by the time that is left."""
MOST_MEMBERS = 25
_LEAST_TREES = 60
_AROUND = 0.3
"""Seconds around a fit."""
_BESIDE = 1.3
"""How many times as long a fit takes beside others, each on a core of its own."""
_MANY_ROWS = 20_000
"""Rows from which on a fit of trees has kept every core busy already."""
_SHORTEST, _EASILY = 0.4, 1.2
"""A network is shortened to this share at most; one that has so many times its usual time is not."""
_OF_A_VARIANT = 2.5
"""So many times what the rung's own settings took, a variant may take where others are still to come."""
_FAR = 12
"""So many times its usual time, a fit is not limited: other settings of a model may take several times as long."""
_WITH_ROOM = 1.25
"""So many times what it is expected to take, something is begun that need not be."""
ENOUGH_FOLDS = 5
"""With fewer folds, one model that has learnt from all rows is better than those that lack a third of them."""
_TIMES_ASKED = 2
"""How often a fold's model is asked for the rows that it has not seen: for its own figures, and for the blend."""


@dataclass(eq=False)
class Bag:
    """One rung's model, fitted once without each fold.

    Args:
        rung: The rung.
        models: One for each fold; of a model that was fitted once, that one.
        answers: Probabilities or numbers for each row by the model that has not seen it, (rows, classes or 1).
        seconds: Time that the fits took.
        folded: Whether there is a model for each fold: of one that was fitted once, training rows have no answers.
        asking: Time that one of its models takes to answer for a row, in seconds.
    """

    rung: Rung
    models: list[BaseModule]
    answers: Tensor
    seconds: float = 0.0
    folded: bool = True
    asking: float = 0.0


def folds_in(seconds: float, of_folds: Callable[[int], float]) -> int:
    """How many folds the time allows; 0 where not even the fewest fit in.

    Args:
        seconds: The time.
        of_folds: Seconds that so many folds take.
    """
    return next((folds for folds in FOLDS if of_folds(folds) <= seconds), 0)


def bagged(
    rungs: Sequence[Rung],
    variants: Sequence[tuple[Rung, Rung]],
    data: Refoldable,
    folds: int,
    left: Callable[[], float],
) -> list[Bag]:
    """Fit the model of each rung once without each fold, as long as there is time, and variants of them.

    The quick ones come first, and their variants where the rest has its time all the same: what they leave is the time
    of the slow ones, which can be shortened.

    Args:
        rungs: The rungs.
        variants: Other settings of a rung's model: the rung, and what would be one.
        data: The data; its training and validation rows are dealt out anew.
        folds: Number of folds.
        left: Seconds that are left.

    Returns:
        Those that have a model for each fold.
    """
    found: list[Bag] = []
    views = data.refolded(folds)

    def fit(rung: Rung) -> Bag | None:
        bag = bag_of(rung, views, left)
        if bag is None:
            log.info("%s was not fitted to each of %d folds", rung.name, folds)
        else:
            log.info("%s: fitted to %d folds in %.0f s", rung.name, folds, bag.seconds)
            found.append(bag)
        return bag

    waiting = list(variants)
    ordered = sorted(rungs, key=seconds_of_fit)
    for place, rung in enumerate(ordered):
        if (bag := fit(rung)) is None:
            continue
        rest = sum(seconds_of_folds(one, folds, least=True) for one in ordered[place + 1 :])
        for pair in [pair for pair in waiting if pair[0] is rung]:
            if left() - rest > _OF_A_VARIANT * bag.seconds:
                fit(pair[1])
                waiting.remove(pair)
    for of, variant in waiting:
        like = next((bag for bag in found if bag.rung is of), None)
        if like is not None and left() > _WITH_ROOM * like.seconds:
            fit(variant)
    return found


def bagged_again(bag: Bag, data: Refoldable, folds: int, left: Callable[[], float], seed: int) -> bool:
    """Fit a bag's model to other folds as well, where there is time, and note the mean of both answers.

    Args:
        bag: The bag.
        data: The data.
        folds: Number of folds.
        left: Seconds that are left.
        seed: By which the folds are drawn.

    Returns:
        Whether it was done.
    """
    if left() < _WITH_ROOM * bag.seconds:
        return False
    more = bag_of(bag.rung, data.refolded(folds, seed), left)
    if more is None:
        return False
    rounds = len(bag.models) // folds
    bag.answers = (bag.answers * rounds + more.answers) / (rounds + 1)
    bag.models += more.models
    return True


def fitted_once(rung: Rung, data: Refoldable, model: BaseModule) -> Bag:
    """A rung's own model, which answers for the validation rows alone.

    Args:
        rung: The rung.
        data: The data.
        model: Its model.
    """
    # Its probabilities as they were learnt: the blend's own are settled later.
    model.settle(Settled())
    said = answers_of(model, data.validation)
    nothing = torch.full((len(data.train), said.shape[1]), torch.nan, dtype=said.dtype)
    return Bag(rung, [model], torch.cat([nothing, said]), folded=False, asking=rung.asking)


def bag_of(rung: Rung, folds: Folds, left: Callable[[], float]) -> Bag | None:
    """Fit a rung's model once without each fold of the data; None where there is no model for each of them.

    Args:
        rung: The rung.
        folds: The data with another part held out each time.
        left: Seconds that are left.
    """
    assert rung.cfg is not None and rung.result is not None
    began, usual = time.monotonic(), float(rung.result.seconds["fit"])
    plan = plan_of(rung.cfg)
    # Fits that keep every core busy gain nothing beside each other, but take memory for each.
    workers = 1 if _keeps_busy(rung, class_of(plan)) else beside.at_once()
    # They are asked when all are fitted.
    answers = rung.asking * len(folds.pool)
    if workers > 1:
        # A forked process has one thread, whatever was typed.
        plan = plan.changed(trainer={"threads": 1})

    def plan_for(number: int) -> RunPlan:
        # Of those that are still to come, so many are fitted at the same time.
        each = (left() - answers) / math.ceil((len(folds) - number) / workers)
        if each < 1:
            raise beside.Lost("its time ran out")
        return _of_a_fold(plan, len(folds), each, usual)

    try:
        models = fitted_to(folds, plan_for, workers)
    except (Diverged, beside.Lost, UserError) as error:
        log.warning("%s is left out of the blend: %s", rung.name, error)
        return None
    fitted = time.monotonic()
    found, ended = unseen_answers(models, folds), time.monotonic()
    return Bag(rung, models, found, ended - began, asking=(ended - fitted) / max(len(found), 1))


def seconds_of_fit(rung: Rung) -> float:
    """What a fit of a rung's model took, and what is around it."""
    assert rung.result is not None
    return float(rung.result.seconds["fit"]) + _AROUND


def seconds_of_folds(rung: Rung, folds: int, least: bool = False) -> float:
    """What fits of a rung's model to so many folds are expected to take.

    Args:
        rung: The rung.
        folds: Number of folds.
        least: Whether a network may be shortened.
    """
    assert rung.cfg is not None and rung.result is not None
    plan, seconds = plan_of(rung.cfg), seconds_of_fit(rung)
    cls = class_of(plan)
    answers = _TIMES_ASKED * rung.asking * int(rung.result.data.get("train") or 0)
    if cls is Forest:
        # Its trees are shared out to the folds, and every core grew them before; where its time ran out they are fewer.
        share = _trees_of_a_fold(plan, folds) / int(
            rung.result.model.get("trees") or plan.model["n_estimators"]
        )
        return share * (folds * seconds + answers)
    if least and _shortenable(plan):
        seconds *= _SHORTEST
    workers = 1 if _keeps_busy(rung, cls) else beside.at_once()
    return folds * seconds * (1.0 if workers == 1 else _BESIDE / workers) + answers


def _keeps_busy(rung: Rung, cls: Any) -> bool:
    """Whether a fit of a rung's model keeps every core busy by itself: trees of many rows."""
    assert rung.result is not None
    rows = int(rung.result.data.get("train") or 0)
    return isinstance(cls, type) and issubclass(cls, Trees) and rows > _MANY_ROWS


def _shortenable(plan: RunPlan) -> bool:
    """Whether the plan is of a model that is trained in steps, to the end of so many epochs."""
    at_once = at_once_with(class_of(plan), plan.model)
    return not at_once and isinstance(plan.fit.trainer.get("max_epochs"), int)


def class_of(plan: RunPlan) -> Any:
    """Class of a plan's model, or whatever builds it."""
    return resolve(plan.model["_target_"])


def _trees_of_a_fold(plan: RunPlan, folds: int) -> int:
    return max(_LEAST_TREES, 2 * int(plan.model["n_estimators"]) // folds)


def _of_a_fold(plan: RunPlan, folds: int, seconds: float, usual: float) -> RunPlan:
    """The plan with a limit of time, where it would be near it, and with a forest's trees shared out to the folds.

    A network has fewer epochs then, so that its schedule ends in time.
    """
    if _shortenable(plan) and seconds < _EASILY * usual:
        epochs = max(1, int(plan.fit.trainer["max_epochs"] * seconds / (_EASILY * usual)))
        plan = plan.changed(trainer={"max_epochs": epochs})
    if class_of(plan) is Forest:
        plan = replace(plan, model={**plan.model, "n_estimators": _trees_of_a_fold(plan, folds)})
    return plan if seconds > _FAR * usual else plan.changed(trainer={"max_time": in_full(seconds)})


def _fixed(plan: RunPlan, bag: Bag) -> RunPlan | None:
    """The plan of a fit to all rows at once, where nothing is held out to stop it; None for models that need that."""
    assert bag.rung.result is not None
    boosted = [one for one in bag.models if isinstance(one, Trees) and not isinstance(one, Forest)]
    rounds = None
    if boosted and len(bag.models) >= ENOUGH_FOLDS:
        return None
    if boosted:
        # As many trees as the folds' own, and more, since more rows bear more.
        grown = len(bag.models) / (len(bag.models) - 1)
        trees = [len(one.root) / (one.spec.outputs if len(one.output) else 1) for one in boosted]
        rounds = max(1, round(grown * sum(trees) / len(trees)))
    kept = bag.models[0].kept(plan.model, bag.rung.result.model, rounds)
    return None if kept is None else replace(plan, model={**plan.model, **kept})


def _final(bag: Bag, data: Refoldable, left: Callable[[], float]) -> list[BaseModule]:
    """The models that answer for a bag: those of its folds, or one that has learnt from all rows."""
    assert bag.rung.cfg is not None and bag.rung.result is not None
    plan = _fixed(plan_of(bag.rung.cfg), bag) if bag.folded else None
    if plan is None or left() < 2 * float(bag.rung.result.seconds["fit"]):
        return bag.models
    with tempfile.TemporaryDirectory() as folder:
        return [fit_alone(plan, data.pooled(), Path(folder))]


def losses_of(data: DataModule, targets: Tensor, metric: str = "mae") -> Callable[[Tensor], Tensor]:
    """What each row adds to what weights are chosen by: its error; of classes its log loss.

    Args:
        data: The data.
        targets: The rows' targets.
        metric: What rungs are compared by. By ``mse`` the errors of numbers are squared, else absolute.
    """
    if data.spec.task == "regression":
        true = targets.reshape(len(targets), -1).double()
        power = 2 if metric == "mse" else 1
        return lambda answers: (answers.double() - true).abs().pow(power).mean(1)
    labels = targets.reshape(-1).long()

    def log_losses(answers: Tensor) -> Tensor:
        return -answers.double().gather(1, labels[:, None])[:, 0].clamp_min(1e-7).log()

    return log_losses


def loss_of(data: DataModule, targets: Tensor, metric: str = "mae") -> Callable[[Tensor], float]:
    """What weights are chosen by: the mean of :func:`losses_of`."""
    losses = losses_of(data, targets, metric)
    return lambda answers: float(losses(answers).mean())


def weights_of(bags: Sequence[Bag], data: Refoldable) -> list[int]:
    """How many parts of a blend each bag is, by rows that its models have not seen."""
    rows = rows_of(bags, data)
    loss = loss_of(data, data.pooled_targets[rows], compared_by(bags, data))
    return greedy_weights([bag.answers[rows] for bag in bags], loss, MOST_MEMBERS)


def compared_by(bags: Sequence[Bag], data: Refoldable) -> str:
    """The metric that the objective of the bags' rungs compares single rows by."""
    cfg = bags[0].rung.cfg
    return (metric_by(data.spec, str(cfg.objective.metric)) if cfg is not None else None) or metric_of(
        data.spec
    )


def rows_of(bags: Sequence[Bag], data: Refoldable) -> slice:
    """The rows that every model has an answer for: where one was fitted once, the validation rows alone."""
    return slice(0 if all(bag.folded for bag in bags) else len(data.train), None)


def mean_of(bags: Sequence[Bag], weights: Sequence[int], rows: slice) -> Tensor:
    """Weighted mean of what bags answer for some rows, (rows, classes or 1)."""
    parts = [bag.answers[rows] * weight for bag, weight in zip(bags, weights, strict=True) if weight]
    return torch.stack(parts).sum(0) / sum(weights)


@dataclass(eq=False)
class Blended:
    """Several bags as one model.

    Args:
        model: Weighted mean of their models, of two levels where there is a second one.
        answers: Its answers for rows that its models have not seen, (rows, classes or 1).
        parts: How many parts of it each rung has.
        best: The bag that is best alone.
        rows: Which rows these are, of training and validation rows.
    """

    model: Blend | Stack
    answers: Tensor
    parts: dict[str, int]
    best: Bag
    rows: slice


def blended(
    bags: Sequence[Bag], data: Refoldable, left: Callable[[], float], second: Sequence[Bag] = ()
) -> Blended:
    """The mean of the bags' models with the weights that are best for the rows they have not seen.

    Args:
        bags: At least one.
        data: The data.
        left: Seconds that are left.
        second: Bags that learn from the answers of those of the others that have a model for each fold; what was
            fitted once is left out then.
    """
    if second:
        bags = [bag for bag in bags if bag.folded]
    both = [*bags, *second]
    rows, weights = rows_of(both, data), weights_of(both, data)
    loss = loss_of(data, data.pooled_targets[rows], compared_by(both, data))
    taken = [(bag, weight) for bag, weight in zip(both, weights, strict=True) if weight]
    answers = mean_of(both, weights, rows)
    best = min(bags, key=lambda bag: loss(bag.answers[rows]))
    parts = {bag.rung.name: weight for bag, weight in taken}
    model: Blend | Stack
    if any(bag in second for bag, _ in taken):
        # Those below answer for the second level even where they have no weight themselves.
        model = Stack.of([bag.models for bag in bags], [bag.models for bag in second], weights)
    else:
        final = [(_final(bag, data, left), weight) for bag, weight in taken]
        models = [model for some, _ in final for model in some]
        model = Blend.of(models, [weight / len(some) for some, weight in final for _ in some])
    return Blended(model, answers, parts, best, rows)
