"""Opening a study: a new one, or one to go on with, which is refused where it was about something else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.config.nearest import suggest
from pipeline.errors import UserError
from pipeline.sweeps.algorithms import GRID
from pipeline.sweeps.optuna_inside import FIXED
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.space import SearchSpace, Value, describe, grid
from pipeline.sweeps.storage import SweepStorage

log = logging.getLogger(__name__)

IDENTITY = "sweep:identity"
DIRECTORY = "sweep:directory"
PLAN = "sweep:plan"
OWN = "the experiment's own settings"

Identity = dict[str, Any]


def identity(plan: Plan, experiment: Mapping[str, Any]) -> Identity:
    """What must not change while a study goes on: the space, the objectives, and the experiment.

    Args:
        plan: The sweep.
        experiment: Settings by dotted key that are neither varied nor about this machine.
    """
    return {
        "space": plan.space
        if plan.jobs is None
        else {str(number): job for number, job in enumerate(plan.jobs)},
        "objective": dict(zip(plan.metrics, plan.directions, strict=True)) if plan.jobs is None else {},
        "experiment": dict(experiment),
    }


def open_study(storage: SweepStorage, plan: Plan, now: Identity) -> optuna.Study:
    """Create the study, or open the one of that name.

    Raises:
        UserError: A study of that name exists and was about something else; the message shows what differs.
    """
    directions = [optuna.study.StudyDirection[way.upper()] for way in plan.directions]
    study = optuna.create_study(
        study_name=plan.study_name, storage=storage, directions=directions, load_if_exists=True
    )
    before = study.user_attrs.get(IDENTITY)
    if before is None:
        if study.get_trials(deepcopy=False):
            raise UserError(
                f"The storage has a study {plan.study_name} that was not made by a sweep of this project;"
                " choose another hydra.sweeper.study_name."
            )
        study.set_user_attr(IDENTITY, now)
        study.set_user_attr(DIRECTORY, plan.directory)
    elif changes := differences(before, now):
        shown = "\n".join(f"  {line}" for line in changes)
        raise UserError(
            f"The study {plan.study_name} exists and was about something else:\n{shown}\n"
            "Go back to the settings it had, or start another one: hydra.sweeper.study_name=NAME."
        )
    return study


def keep_plan(study: optuna.Study, plan: Plan) -> None:
    """Have the study keep the plan, so that a worker anywhere needs the study's name alone."""
    study.set_user_attr(PLAN, plan.as_dict())


def plan_of(storage: SweepStorage, name: str) -> Plan:
    """The plan of a study.

    Raises:
        UserError: There is no such study, or no sweep has been started in it.
    """
    names = [entry.study_name for entry in storage.get_all_studies()]
    if name not in names:
        raise UserError(f"study {name}: the storage has no such study. {suggest(name, names)}".strip())
    content = storage.get_study_user_attrs(storage.get_study_id_from_name(name)).get(PLAN)
    if content is None:
        raise UserError(
            f"study {name}: no sweep has been started in it; start it with its own command first."
        )
    return Plan.from_dict(content)


def differences(before: Identity, now: Identity) -> list[str]:
    """What changed between two identities, a line each: key, old and new."""
    lines = []
    for part in ("objective", "space", "experiment"):
        old, new = before.get(part, {}), now.get(part, {})
        for key in [*old, *(key for key in new if key not in old)]:
            # Through JSON, since the stored one came back from it (tuples as lists).
            if json.dumps(old.get(key)) != json.dumps(new.get(key)):
                lines.append(f"{key}: {_shown(part, key, old)} -> {_shown(part, key, new)}")  # noqa: PERF401
    return lines


def _shown(part: str, key: str, values: Mapping[str, Any]) -> str:
    if key not in values:
        return {"space": "not varied", "objective": "not an objective"}.get(part, "not set")
    value = values[key]
    if part == "space" and isinstance(value, str):
        return describe(optuna.distributions.json_to_distribution(value))
    return str(value)


def first_trials(own: Mapping[str, Value], seeds: Sequence[Mapping[str, Value]]) -> list[dict[str, Any]]:
    """System attributes of the first trials: those of own settings, and then of known-good ones."""
    first = [{FIXED: dict(own), "sweep:origin": OWN}] if own else []
    return [*first, *({FIXED: dict(seed), "sweep:origin": "seed_trials"} for seed in seeds)]


def prepared(plan: Plan) -> Callable[[int], Mapping[str, Any]]:
    """What a new trial begins with, by its number: a multirun's job, a point of the grid, or what `plan.first` has."""
    known: Sequence[Mapping[str, Any]] = plan.first
    if plan.jobs is not None:
        known = [{"sweep:job": job} for job in plan.jobs]
    elif plan.sampler["_target_"] == GRID:
        known = [{FIXED: row, "sweep:origin": "grid"} for row in grid(plan.search_space)]
    return lambda number: known[number] if number < len(known) else {}


def read_seed_trials(configured: Any, space: SearchSpace) -> list[dict[str, Value]]:
    """`hydra.sweeper.seed_trials`: a list of settings by key; keys left out are sampled.

    Raises:
        UserError: A key is not in the space, or a value lies outside of it.
    """
    seeds: list[dict[str, Value]] = []
    for number, entry in enumerate(configured or []):
        where = f"hydra.sweeper.seed_trials[{number}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}={entry}: expected settings by key, such as {{optimizer.lr: 0.001}}.")
        space.require((str(key) for key in entry), where)
        named = {space.key(str(key)): value for key, value in entry.items()}
        seeds.append({key: _within(space, key, value, where) for key, value in named.items()})
    return seeds


def _within(space: SearchSpace, key: str, value: Any, where: str) -> Value:
    from pipeline.sweeps.space import match, plain_key

    found, inside = match(space.distributions[key], value)
    if not found:
        raise UserError(f"{where}: {plain_key(key)}={value} is not in {describe(space.distributions[key])}.")
    return inside


def trials_of(study: optuna.Study, plan: Plan) -> list[FrozenTrial]:
    """The study's trials that belong to its total, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.number < plan.n_trials]


def is_complete(trials: Sequence[FrozenTrial], plan: Plan) -> bool:
    """Whether all trials of the total are done."""
    return len(trials) >= plan.n_trials and all(trial.state.is_finished() for trial in trials)


def best_trials(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The winner, or the Pareto front of several objectives; empty where no trial was completed.

    Of equal ones the first trial wins.
    """
    done = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and "duplicate_of" not in trial.user_attrs
    ]
    if not done:
        return []
    if len(study.directions) > 1:
        numbers = {trial.number for trial in study.best_trials}
        return [trial for trial in done if trial.number in numbers]
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return [
        min(done, key=lambda trial: (sign * (trial.value if trial.value is not None else 0.0), trial.number))
    ]
