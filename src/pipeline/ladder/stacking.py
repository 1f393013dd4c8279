"""A second level of trees: they learn from a table's inputs and from what the models below answer for its rows."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.data.tables.refolding import Refoldable
from pipeline.ladder.bagging import (
    FOLDS,
    Bag,
    bag_of,
    class_of,
    compared_by,
    losses_of,
    mean_of,
    rows_of,
    seconds_of_folds,
    weights_of,
)
from pipeline.ladder.rungs import Rung
from pipeline.models.stack import above, told
from pipeline.models.trees import Boosting, Forest
from pipeline.runs.plan import plan_of

log = logging.getLogger(__name__)

LEAST_ROWS = 750
"""Rows from which on there is a second level: of fewer its models learn the noise of the answers."""
MOST_CELLS = 50_000_000
"""Inputs of all rows up to which there is one: they are held in memory several times."""
_WITH_ROOM = 1.5
_VARIED = 2.0
"""So many times what the rungs take, what varies them takes as well."""
_SURE = 2.0
"""Standard errors by which the second level has to make the blend better on rows that its models have not seen."""


def seconds_of_second_level(rungs: Sequence[Rung], data: Refoldable) -> float:
    """What a second level above these rungs, and above what varies them, is expected to take."""
    if not _suits(data):
        return 0.0
    return _VARIED * sum(seconds_of_folds(rung, FOLDS[0]) for rung in rungs if _is_above(rung))


def _suits(data: Refoldable) -> bool:
    rows = len(data.pooled_targets)
    return rows >= LEAST_ROWS and rows * data.spec.input_shape[0] <= MOST_CELLS


def _is_above(rung: Rung) -> bool:
    """Whether a rung's kind of model is one of the second level: trees that are grown quickly."""
    assert rung.cfg is not None
    return class_of(plan_of(rung.cfg)) in (Boosting, Forest)


class Beside(Rows):
    """Rows with other models' answers as further inputs.

    Args:
        rows: The rows.
        answers: (rows, answers).
    """

    def __init__(self, rows: Rows, answers: Tensor) -> None:
        super().__init__(answers, rows.y)
        self.rows = rows

    def _inputs(self, rows: Tensor) -> Tensor:
        return torch.cat([self.rows.take(rows)[0].float().flatten(1), torch.as_tensor(self.x[rows])], 1)

    def subset(self, rows: Tensor) -> Beside:
        return Beside(self.rows.subset(rows), torch.as_tensor(self.x[rows]))


def second_level(bags: Sequence[Bag], data: Refoldable, folds: int, left: Callable[[], float]) -> list[Bag]:
    """Fit trees once without each fold to the inputs and the answers of the models that have not seen the row.

    Args:
        bags: The first level. Models that were fitted once are no part of it: they have seen most rows.
        data: The data.
        folds: Number of folds, the same as of the first level.
        left: Seconds that are left.

    Returns:
        What makes the blend better by more than chance; none where the table is too small or too large, or the time
        is over.
    """
    below = [bag for bag in bags if bag.folded]
    if len(below) < 2 or not _suits(data):
        return []
    views = _seen_from_above(below, data).refolded(folds)
    found = []
    for bag in sorted(below, key=lambda bag: bag.seconds):
        if _is_above(bag.rung) and left() > _WITH_ROOM * bag.seconds:
            rung = replace(bag.rung, name=f"{bag.rung.name} on top")
            if one := bag_of(rung, views, left):
                log.info("%s: fitted to %d folds in %.0f s", rung.name, folds, one.seconds)
                found.append(one)
    return found if found and _better(bags, below, found, data) else []


def _seen_from_above(below: Sequence[Bag], data: Refoldable) -> Refoldable:
    """The data as the second level sees it, none of its rows held out."""
    answers = torch.cat([told(bag.answers, data.spec) for bag in below], 1).float()
    seen = copy.copy(data)
    seen.spec = above(data.spec, len(below))
    seen.train, seen.validation = Beside(data.pooled().train, answers), None
    return seen


def _better(bags: Sequence[Bag], below: Sequence[Bag], found: Sequence[Bag], data: Refoldable) -> bool:
    """Whether the blend of both levels is better than that of the first by more than chance.

    It has to be better as well than that of everything there is, with what was fitted once and is no part of it.
    """
    both, first = _losses([*below, *found], data), _losses(below, data)
    gained = first - both
    if float(gained.mean()) <= _SURE * float(gained.std()) / math.sqrt(len(gained)):
        return False
    if len(below) == len(bags):
        return True
    return float(both[rows_of(bags, data)].mean()) < float(_losses(bags, data).mean())


def _losses(bags: Sequence[Bag], data: Refoldable) -> Tensor:
    """What each row that all bags have an answer for adds to the loss of their best mean."""
    rows = rows_of(bags, data)
    losses = losses_of(data, data.pooled_targets[rows], compared_by(bags, data))
    return losses(mean_of(bags, weights_of(bags, data), rows))
