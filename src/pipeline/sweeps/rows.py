"""The rows of a trial in Optuna's tables, read and written within a transaction that is open."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import orm

from pipeline.sweeps.optuna_inside import FIXED, models

CLAIM = "sweep:claim"
"""System attribute with the process that runs a trial."""
LOST = "sweep:lost"
"""How often a trial's worker vanished in a row without the trial having got further."""
REACHED = "sweep:reached"
"""The furthest step (epoch or fold, from 1) that any attempt reported."""
STEP = "sweep:step"
"""The step that this attempt reported, where there is no single objective whose values say so."""
COMPLETE_SETTINGS = "sweep:settings"
"""The values that a trial draws."""
ATTEMPT = "sweep:attempt"
"""Directory of the last attempt."""
REPORTS = "sweep:reports"
"""What earlier attempts reported, by step."""

# What a trial keeps when it is queued again.
_KEPT = (FIXED, LOST, REACHED, ATTEMPT, REPORTS, "sweep:origin", "sweep:job")


def to_waiting(session: orm.Session, trial: Any) -> None:
    """Forget everything the attempt left but the values it was to run with, and what it takes to go on from there."""
    attributes = {
        entry.key: json.loads(entry.value_json)
        for entry in session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial.trial_id)
    }
    if COMPLETE_SETTINGS in attributes:
        attributes[FIXED] = {**attributes.get(FIXED, {}), **attributes[COMPLETE_SETTINGS]}
    if ATTEMPT in attributes:
        attributes[REPORTS] = {**attributes.get(REPORTS, {}), **_reports(session, trial.trial_id)}
    for table in (
        models.TrialParamModel,
        models.TrialValueModel,
        models.TrialIntermediateValueModel,
        models.TrialUserAttributeModel,
        models.TrialSystemAttributeModel,
        models.TrialHeartbeatModel,
    ):
        session.query(table).filter_by(trial_id=trial.trial_id).delete(synchronize_session=False)
    for key in _KEPT:
        if key in attributes:
            set_system_attr(session, trial.trial_id, key, attributes[key])
    trial.state = TrialState.WAITING
    trial.datetime_start = None
    trial.datetime_complete = None


def steps_reported(session: orm.Session, trial_id: int) -> int:
    """How many steps the attempt came to, as far as it reported."""
    steps = [int(step) + 1 for step in _reports(session, trial_id)]
    return max([*steps, int(system_attr(session, trial_id, STEP) or 0)])


def _reports(session: orm.Session, trial_id: int) -> dict[str, float]:
    found = session.query(models.TrialIntermediateValueModel).filter_by(trial_id=trial_id)
    return {str(entry.step): entry.intermediate_value for entry in found}


def note_beat(session: orm.Session, trial_id: int) -> None:
    """Write a sign of life, by the database's clock."""
    beat = session.query(models.TrialHeartbeatModel).filter_by(trial_id=trial_id).one_or_none()
    if beat is None:
        begin_beat(session, trial_id)
    else:
        beat.heartbeat = sqlalchemy.func.now()


def begin_beat(session: orm.Session, trial_id: int) -> None:
    """Write the first sign of life of a new trial."""
    session.add(models.TrialHeartbeatModel(trial_id=trial_id, heartbeat=sqlalchemy.func.now()))


def add_system_attr(session: orm.Session, trial_id: int, key: str, value: Any) -> None:
    """Write a system attribute that a new trial does not have yet."""
    row = models.TrialSystemAttributeModel(trial_id=trial_id, key=key, value_json=json.dumps(value))
    session.add(row)


def system_attr(session: orm.Session, trial_id: int, key: str) -> Any:
    """A system attribute, None where there is none."""
    entry = (
        session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial_id, key=key).one_or_none()
    )
    return None if entry is None else json.loads(entry.value_json)


def set_system_attr(session: orm.Session, trial_id: int, key: str, value: Any) -> None:
    """Write a system attribute."""
    set_attr(session, models.TrialSystemAttributeModel, trial_id, key, value)


def set_attr(session: orm.Session, table: Any, trial_id: int, key: str, value: Any) -> None:
    """Write an attribute of any kind."""
    entry = session.query(table).filter_by(trial_id=trial_id, key=key).one_or_none()
    if entry is None:
        session.add(table(trial_id=trial_id, key=key, value_json=json.dumps(value)))
    else:
        entry.value_json = json.dumps(value)
    session.flush()


def forget(session: orm.Session, trial_id: int, *keys: str) -> None:
    """Delete system attributes."""
    for key in keys:
        session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial_id, key=key).delete()
