"""Models that Lightning does not train: trees, solved linear models, and what is written out by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.data.core.splits import Rows
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.models.by_hand.twins import ByHand
from pipeline.models.foreign import Wrapped
from pipeline.models.linear import Linear
from pipeline.models.trees import Trees
from pipeline.training.by_hand import learn_by_hand
from pipeline.training.evaluating import outputs_of
from pipeline.training.features import solve_head
from pipeline.training.fit import Fit
from pipeline.training.growing import grow
from pipeline.training.plan import FitPlan
from pipeline.training.recorder import History
from pipeline.training.scoring import scores
from pipeline.training.signals import Signals
from pipeline.training.softening import say_unsoftened
from pipeline.training.solving import solve
from pipeline.training.stopping import Stop


@dataclass
class Fitted:
    """What a fit at once came to.

    Args:
        rounds: Number of trees (for each class) that were kept, or of passes over the data.
        note: Why the fit ended, in words.
        history: Metrics by number of rounds.
        facts: What the result says of the model beside its settings.
        seconds: Time that the fit took.
        samples_per_second: Training samples times rounds, a second.
        cut: Whether its time was over before it was done.
    """

    rounds: int
    note: str
    history: History = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    samples_per_second: float = 0.0
    cut: bool = False


def fits_at_once(model: BaseModule) -> bool:
    """Whether a model is fitted in a way of its own, not trained in Lightning's steps."""
    return at_once_with(type(model), vars(model))


def at_once_with(cls: Any, settings: Mapping[str, Any]) -> bool:
    """:func:`fits_at_once` of a class that may be anybody's, and of the settings that it will be built with."""
    needed = getattr(cls, "at_once", None)
    return needed is not None and all(settings.get(name) == value for name, value in needed.items())


def fit_at_once(fit: Fit) -> Fitted:
    """Fit ``fit.model`` to its training split.

    What is cut off begins anew: it comes to the same again, since all that is random follows from the seed.

    Raises:
        UserError: A setting does not fit such models.
        Interrupted: By Ctrl-C or SIGTERM.
    """
    model, data = fit.model, fit.data
    name = type(model).__name__
    if fit.trainer.world_size > 1:
        raise UserError(f"{name} is fitted in one process: set trainer.devices=1")
    say_unsoftened(data, name)
    fit.started = time.time()
    began = time.perf_counter()
    threads = fit.plan.trainer.get("threads", "auto")
    workers = torch.get_num_threads() if threads == "auto" else int(threads)
    held_out = data.validation if data.validation is not None and len(data.validation) else None
    with Signals(fit.checkpoints) as signals:
        stop = Stop(signals, fit.plan.trainer.get("max_time"))
        train = data.train if isinstance(model, ByHand) else _limited(data.train, fit.plan, data.batch_size)
        if isinstance(model, Trees):
            found = grow(model, train, held_out, data.encoder, fit.plan.seed, workers, stop)
        elif isinstance(model, ByHand):
            found = learn_by_hand(fit, model, stop)
        elif isinstance(model, Wrapped):
            found = solve_head(model, train, held_out, stop)
        else:
            assert isinstance(model, Linear)
            # Of ids the encoder hands on no more than which words there are.
            weights = getattr(data.encoder, "weights", None) if getattr(data.encoder, "wide", False) else None
            found = solve(model, train, held_out, stop, weights)
    seconds = time.perf_counter() - began
    history = found.history
    if held_out is not None:
        # As every other model is validated: the last point of each curve.
        logits, targets = outputs_of(fit.trainer, fit.module, data.loader_of(held_out))
        for metric, value in scores(model, logits, targets).items():
            points = [point for point in history.get(f"val/{metric}", []) if point[0] != found.rounds]
            history[f"val/{metric}"] = sorted([*points, (found.rounds, value)])
    fit.seconds = time.perf_counter() - began
    rate = (
        (data.train.samples if isinstance(model, ByHand) else len(train)) * found.rounds / max(seconds, 1e-9)
    )
    return Fitted(found.rounds, found.note, history, found.facts, fit.seconds, rate, found.cut)


def _limited(split: Rows, plan: FitPlan, batch_size: int) -> Rows:
    """What ``trainer.limit_train_batches`` and ``fast_dev_run`` leave of the training split, drawn at random."""
    limit, quick = plan.trainer.get("limit_train_batches", 1.0), int(plan.trainer.get("fast_dev_run") or 0)
    rows = limit * batch_size if isinstance(limit, int) else math.ceil(limit * len(split))
    rows = quick * batch_size if quick else rows
    if rows >= len(split):
        return split
    if not rows:
        raise UserError(f"trainer.limit_train_batches={limit} leaves nothing to fit; set it above 0")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(plan.seed))
    return split.subset(order[:rows].sort().values)
