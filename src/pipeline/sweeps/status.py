"""How studies stand, read from their storage alone."""

from __future__ import annotations

import io

import optuna
from rich.console import Console
from rich.table import Table

from pipeline.sweeps.display import Display
from pipeline.sweeps.storage import SweepStorage
from pipeline.sweeps.study import PLAN, plan_of, trials_of
from pipeline.sweeps.summary import counts


def table(storage: SweepStorage, name: str) -> Table:
    """The trials of a study that run, and the latest that ended.

    Raises:
        UserError: There is no such study.
    """
    plan = plan_of(storage, name)
    study = optuna.load_study(study_name=name, storage=storage)
    return Display(plan, study, Console(file=io.StringIO())).table(trials_of(study, plan))


def lines(storage: SweepStorage) -> list[str]:
    """A line for every study: its name, and how many of its trials are in which state."""
    found = []
    for entry in storage.get_all_studies():
        study = optuna.load_study(study_name=entry.study_name, storage=storage)
        if PLAN not in study.user_attrs:
            continue
        plan = plan_of(storage, entry.study_name)
        numbers = counts(plan, trials_of(study, plan))
        told = ", ".join(f"{number} {state}" for state, number in numbers.items() if number)
        found.append(f"{entry.study_name}: {plan.n_trials} trials: {told}")
    return found or ["The storage has no study."]
