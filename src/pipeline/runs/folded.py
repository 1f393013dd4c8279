"""Where rows are few: several fits, each without another part of them, that answer together.

The mean of such models is steadier than one of them (bagging, Breiman 1996, section 2.1, here over the folds of a
cross-validation), and every row says how good and how sure they are, since some of them have not seen it. What one
validation split of a few dozen rows says of that, and of when to stop, is chance.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.data.tables.refolding import Refoldable
from pipeline.errors import Diverged, UserError
from pipeline.metrics import four_places, judged_by
from pipeline.models.base import BaseModule
from pipeline.models.blend import Blend, as_logits
from pipeline.runs import beside
from pipeline.runs.alone import fit_alone
from pipeline.training.building import parameters
from pipeline.training.module import TrainingModule
from pipeline.training.scoring import scores

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.data.tables.refolding import Folds
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.plan import RunPlan
    from pipeline.runs.result import RunResult
    from pipeline.training.fit import Fit

log = logging.getLogger(__name__)

_FOLDS = 5
_MOST_ROWS = 1500
"""Training and validation rows beyond which one fit is as good, about."""
_MOST_VALUES = 100_000
"""Rows times inputs beyond which several fits take minutes."""
_ROWS = 4096


@dataclass(eq=False)
class Folded:
    """Models fitted once without each fold, and the first one, as one model.

    Args:
        model: The mean of what they answer.
        logits: Answers of those that have not seen the row, of training rows and then of validation rows.
        targets: What is true of these rows.
        validation: How many of them are validation rows.
        seconds: Time that it took.
    """

    model: Blend
    logits: Tensor
    targets: Tensor
    validation: int
    seconds: float

    @property
    def validated(self) -> tuple[Tensor, Tensor]:
        """Logits and targets of the validation rows alone."""
        return self.logits[-self.validation :], self.targets[-self.validation :]


def folds_of(plan: RunPlan, data: DataModule, model: Any, hooks: Hooks) -> int:
    """How many folds a run's model is fitted to beside its first fit; 0 for that one alone.

    ``auto`` is for models that say so (``several_where_few``), where rows are few and nothing was asked for that speaks
    of one fit: a number of epochs, a time, a start, a trial of a sweep.

    Args:
        plan: What was asked for.
        data: The data.
        model: The model, not yet trained.
        hooks: Additions of the caller.

    Raises:
        UserError: A number of folds was asked for, and the rows cannot be dealt out to them.
    """
    if not plan.bag_folds or not plan.train:
        return 0
    reason, rows = "", 0
    if not isinstance(model, BaseModule):
        reason = "it is for models of this project"
    elif not isinstance(data, Refoldable) or not data.can_be_refolded or getattr(data, "folds", None):
        reason = "it needs rows of a table that are dealt out at random (data.split=fraction, no data.folds)"
    elif data.train_on_all or not data.validation:
        reason = "nothing is held out; set data.validation_fraction above 0"
    elif plan.start_from is not None:
        reason = "its fits begin anew, not with the weights of ckpt_path"
    else:
        rows = len(data.train) + len(data.validation)
    if plan.bag_folds != "auto":
        folds = int(plan.bag_folds)
        if not reason and folds > rows:
            reason = f"there are {rows} rows; expected at most so many folds"
        if reason:
            raise UserError(f"task.bag_folds={folds}: {reason}; task.bag_folds=null is one fit")
        return folds
    if reason or not model.several_where_few or _is_one_fit(plan, hooks):
        return 0
    few = rows <= _MOST_ROWS and rows * math.prod(data.spec.input_shape) <= _MOST_VALUES
    return _FOLDS if few and rows >= 2 * _FOLDS else 0


def _is_one_fit(plan: RunPlan, hooks: Hooks) -> bool:
    trainer = plan.fit.trainer
    asked = trainer.get("max_epochs") != "auto" or any(
        trainer.get(key) for key in ("max_time", "overfit_batches", "fast_dev_run")
    )
    return asked or hooks.on_epoch is not None


def in_folds(plan: RunPlan, fit: Fit, result: RunResult) -> tuple[Fit, Folded | None]:
    """Fit a plan's model to folds beside its first fit, and note what all come to together.

    Args:
        plan: The plan, with a number of folds.
        fit: The first fit, which has ended.
        result: What it came to.

    Returns:
        The fit with the model that they are together; as it was, and None, where they did not come to an end.
    """
    assert isinstance(fit.data, Refoldable)
    if fit.trainer.world_size > 1:
        log.warning("task.bag_folds=%s: several devices train one fit alone", plan.bag_folds)
        return fit, None
    folded = fit_folds(plan, fit.data, fit.model)
    if folded is None:
        return fit, None
    note_folds(folded, result)
    return replace(fit, module=TrainingModule(folded.model)), folded


def fit_folds(plan: RunPlan, data: Refoldable, first: BaseModule) -> Folded | None:
    """Fit a plan's model to folds as well; None where that does not come to an end, which is said.

    Args:
        plan: The plan, with a number of folds.
        data: The data; its training and validation rows are dealt out anew.
        first: The model that was fitted to its training rows.
    """
    began, folds = time.monotonic(), data.refolded(int(plan.bag_folds or 0))
    # One thread each: what is fitted does not depend on how many cores there are.
    plan = plan.changed(trainer={"threads": 1}, callbacks={"progress": None})
    log.info("%d more fits, each without another part of %d rows", len(folds), len(folds.pool))
    try:
        models = fitted_to(folds, lambda number: plan, beside.at_once())
    except (Diverged, beside.Lost, UserError) as error:
        log.warning("The first fit stays alone: one of %d others came to nothing (%s)", len(folds), error)
        return None
    logits = as_logits(unseen_answers(models, folds), data.spec)
    assert data.validation is not None
    # What it answers is no more in the form that such a loss was given.
    loss = "auto" if first.objective.gives_probabilities else first.hyperparameters["loss"]
    return Folded(
        Blend.of([first, *models], [1.0] * (len(models) + 1), loss=loss),
        logits,
        data.pooled_targets,
        len(data.validation),
        time.monotonic() - began,
    )


def note_folds(folded: Folded, result: RunResult) -> None:
    """Note in a run's result what several fits came to: validation figures are theirs, not those of the first one."""
    found = scores(folded.model, *folded.validated)
    result.metrics |= {f"val/{name}": value for name, value in found.items()}
    everywhere = scores(folded.model, folded.logits, folded.targets)
    metric = "log_loss" if "log_loss" in everywhere else judged_by(everywhere)
    assert metric is not None
    result.seconds["fit"] += folded.seconds
    result.model |= {"parameters": parameters(folded.model), "bag_folds": len(folded.model.members) - 1}
    result.notes.append(
        f"{len(folded.model.members) - 1} more fits, each without another part of the {len(folded.targets)} rows: the "
        f"mean of all answers ({metric} {four_places(everywhere[metric])} on rows that a fit has not seen); "
        "task.bag_folds=null for the first fit alone"
    )


def fitted_to(folds: Folds, plan_for: Callable[[int], RunPlan], workers: int) -> list[BaseModule]:
    """A model for each fold, fitted without it.

    Args:
        folds: The data with another part held out each time.
        plan_for: Gives the plan of each fold's fit, when that begins.
        workers: Number of fits at the same time.

    Raises:
        Diverged, UserError, Lost: By one of the fits.
    """

    def job(number: int) -> BaseModule:
        plan = plan_for(number)
        with tempfile.TemporaryDirectory() as folder:
            return fit_alone(plan, folds[number][0], Path(folder))

    jobs = [partial(job, number) for number in range(len(folds))]
    return beside.fitted_beside(jobs, folds.data.encoder, workers)


def unseen_answers(models: Sequence[BaseModule], folds: Folds) -> Tensor:
    """Probabilities or numbers for every row by the model that was fitted without it, (rows, classes or 1)."""
    parts = [answers_of(model, folds.held_out(number)) for number, model in enumerate(models)]
    return torch.cat(parts)[torch.cat(list(folds.parts)).argsort()]


def answers_of(model: BaseModule, split: Any) -> Tensor:
    """Probabilities or numbers for every row of a split, in order."""
    model.eval()
    with torch.inference_mode():
        parts = [
            model.objective.probabilities(model(split.take(rows)[0].to(model.device)).float().cpu())
            for rows in torch.arange(len(split)).split(_ROWS)
        ]
    return torch.cat(parts).reshape(len(split), -1)
