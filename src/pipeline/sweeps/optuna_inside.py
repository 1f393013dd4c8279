"""The only door to Optuna's private side: each private thing that the sweeps use, with the reason.

``tests/sweeps/test_optuna_inside.py`` holds Optuna to all of it, and fails by name where a version changes something.
"""

from __future__ import annotations

from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.pruners import _filter_study
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models as _models
from optuna.trial import FrozenTrial
from sqlalchemy import orm

# The tables of Optuna's storage. Queueing, claiming and ending a trial are one transaction each here; Optuna's public
# methods make a transaction each and cannot be joined. They are declared in a way that type checkers misread.
models: Any = _models

FIXED = "fixed_params"
"""The system attribute with values that a queued trial must take; `Study.enqueue_trial` writes it, with no total."""

CALLED = (*sorted(BaseStorage.__abstractmethods__), "_get_trials", "_set_trial_param")
"""Every way in which Optuna asks a storage. The last two are what its cache in front of a database calls."""


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A value for a parameter; the public `suggest_...` take a distribution's parts, one method a kind."""
    return trial._suggest(name, distribution)


def contains(distribution: BaseDistribution, value: float) -> bool:
    """Whether a distribution can give this number, steps and rounding considered."""
    return distribution._contains(distribution.to_internal_repr(value))


def filter_study(study: Study, trial: FrozenTrial) -> Study:
    """The study as a sampler is to see it after a trial: Hyperband's brackets are studies of their own."""
    return _filter_study(study, trial)


def trial_of(study: Study, trial_id: int) -> Trial:
    """A trial that was claimed, to run: what `ask` gives, which claims in its own way.

    The study looks at the storage first. It keeps the trials that it knows until it is asked for one, and its cache
    takes no value for a trial that it has not seen.
    """
    study._thread_local.cached_all_trials = None
    study.get_trials(deepcopy=False)
    return Trial(study, trial_id)


def write_value(storage: RDBStorage, session: orm.Session, trial: Any, objective: int, value: float) -> None:
    """Write a trial's value within a transaction, as the public method does in one of its own."""
    storage._set_trial_value_without_commit(session, trial, objective, value)
