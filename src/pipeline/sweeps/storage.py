"""Where a study is kept: Optuna's relational storage, with trials that are queued, claimed and given back atomically.

Optuna's own way (ask, tell, a callback that adds a trial for every lost one) cannot promise a total: two workers may
claim one waiting trial on SQLite, and a retry gets a number of its own. Here every step is one transaction.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import orm

from pipeline.config.masking import mask
from pipeline.errors import UserError
from pipeline.sweeps.addresses import BUSY_SECONDS, engine_arguments
from pipeline.sweeps.optuna_inside import CALLED, models, write_value
from pipeline.sweeps.patience import Patience, first_line, is_away, is_locked, patient
from pipeline.sweeps.rows import (
    ATTEMPT,
    CLAIM,
    LOST,
    REACHED,
    REPORTS,
    add_system_attr,
    begin_beat,
    forget,
    note_beat,
    set_attr,
    set_system_attr,
    steps_reported,
    system_attr,
    to_waiting,
)
from pipeline.tracking import process

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 60


class LostClaim(Exception):
    """The trial was taken from this worker, which had gone silent for too long."""


@dataclass(frozen=True)
class Claim:
    """The right of one worker to run one trial.

    Args:
        trial_id: Optuna's id of the trial in the storage.
        number: Number of the trial in its study.
        token: Random text that tells this claim from an earlier or later one of the same trial.
    """

    trial_id: int
    number: int
    token: str


@dataclass
class _Asked:
    """A claim that is asked for: its token, and whether it was asked for before, so that it may have been given."""

    token: str
    before: bool = False


@dataclass(frozen=True)
class Lost:
    """A trial whose worker vanished.

    Args:
        number: Number of the trial.
        times: Number of times in a row that this happened without the trial having got further.
        again: Whether it will run again.
    """

    number: int
    times: int
    again: bool


class SweepStorage(RDBStorage):
    """Optuna's storage with an atomic queue.

    Args:
        url: Address in SQLAlchemy's form: `sqlite:///file` or `postgresql+psycopg://user@host/database`.
        grace: Seconds without a sign of life after which a worker on another machine counts as gone.
    """

    def __init__(self, url: str, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._ready = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url, engine_kwargs=engine_arguments(url))
        self._ready = True

    def be_patient(self, grace: float) -> None:
        """Have another grace from now on: that of the study, once it is known."""
        self._grace = grace

    # Optuna's constructor makes the engine and uses it at once, so SQLite's transactions are set right on assignment.
    @property
    def engine(self) -> sqlalchemy.Engine:
        """SQLAlchemy's engine."""
        return self._engine

    @engine.setter
    def engine(self, engine: sqlalchemy.Engine) -> None:
        if engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(engine, "connect", _configure_sqlite)
            sqlalchemy.event.listen(engine, "begin", self._begin)
        self._engine = engine

    def _begin(self, connection: sqlalchemy.Connection) -> None:
        # A transaction that reads first and writes later fails at once with "database is locked" where another one
        # wrote in between, whatever the timeout: taking the write lock at the beginning makes it wait its turn. Not
        # while Optuna checks its tables, which it does with one connection open inside another.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self._ready else "BEGIN")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[orm.Session]:
        with orm.Session(self.engine) as session, session.begin():
            yield session

    def claim(
        self,
        study_id: int,
        total: int,
        prepared: Callable[[int], Mapping[str, Any]] = lambda number: {},
    ) -> Claim | None:
        """Take the first waiting trial, or make the study's next one.

        Trials are made when they are claimed, not queued before: each look at a study costs as much as it has trials
        that are not done. Their numbers have no gap and none is given twice, since a study is locked while it gets one.

        Args:
            study_id: Optuna's id of the study.
            total: Number of trials that the study shall have in the end.
            prepared: Function that gives a new trial's system attributes (fixed values, where they come from) by its
                number.

        Returns:
            The claim; None where none waits and the study has all of its trials.
        """
        return self._claim(study_id, total, prepared, _Asked(uuid.uuid4().hex))

    @patient
    def _claim(
        self, study_id: int, total: int, prepared: Callable[[int], Mapping[str, Any]], asked: _Asked
    ) -> Claim | None:
        with self._transaction() as session:
            if asked.before and (found := _claimed(session, study_id, asked.token)):
                return found
            asked.before = True
            trial = (
                session.query(models.TrialModel)
                .filter_by(study_id=study_id, state=TrialState.WAITING)
                .filter(models.TrialModel.number < total)
                .order_by(models.TrialModel.number)
                .with_for_update(skip_locked=True)
                .first()
            )
            owner = {"token": asked.token, "owner": process.this_process(), "host": socket.gethostname()}
            if trial is not None:
                trial.state = TrialState.RUNNING
                trial.datetime_start = datetime.now()
                set_system_attr(session, trial.trial_id, CLAIM, owner)
                note_beat(session, trial.trial_id)
            elif _next_number(session, study_id) < total:
                trial = _new_trial(session, study_id, total, prepared, owner)
            return None if trial is None else Claim(trial.trial_id, trial.number, asked.token)

    def beat(self, claim: Claim) -> bool:
        """Give a sign of life.

        Returns:
            False where the trial is no longer this worker's.
        """
        with self._transaction() as session:
            try:
                _owned(session, claim)
            except LostClaim:
                return False
            note_beat(session, claim.trial_id)
            return True

    @patient
    def finish(
        self,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a trial's end: state, values and user attributes together.

        Raises:
            LostClaim: The trial is no longer this worker's; nothing is written.
        """
        with self._transaction() as session:
            trial = models.TrialModel.find_or_raise_by_id(claim.trial_id, session, for_update=True)
            ours = _token(session, claim) == claim.token
            if trial.state == state and ours:
                # Written already, but the answer was lost.
                return
            if trial.state != TrialState.RUNNING or not ours:
                raise _taken(claim)
            for key, value in (attributes or {}).items():
                set_attr(session, models.TrialUserAttributeModel, trial.trial_id, key, value)
            for objective, value in enumerate(values or ()):
                write_value(self, session, trial, objective, value)
            trial.state = state
            trial.datetime_complete = datetime.now()

    @patient
    def give_back(self, claim: Claim) -> None:
        """Queue an interrupted trial again, under its own number and with its own values.

        Raises:
            LostClaim: The trial is no longer this worker's.
        """
        with self._transaction() as session:
            to_waiting(session, _owned(session, claim))

    @patient
    def reclaim(self, study_id: int, retries: int) -> list[Lost]:
        """Find trials whose worker is gone; queue them again, or fail them after `retries` times without progress.

        A worker of this machine is gone when its process is; one of another machine when its signs of life stopped.
        """
        with self._transaction() as session:
            running = (
                session.query(models.TrialModel)
                .filter_by(study_id=study_id, state=TrialState.RUNNING)
                .order_by(models.TrialModel.number)
                .with_for_update(skip_locked=True)
                .all()
            )
            return [self._lose(session, trial, retries) for trial in running if self._is_gone(session, trial)]

    def _is_gone(self, session: orm.Session, trial: Any) -> bool:
        claim = system_attr(session, trial.trial_id, CLAIM)
        if claim is not None and not process.is_alive(claim["owner"]):
            return True
        beat = session.query(models.TrialHeartbeatModel).filter_by(trial_id=trial.trial_id).one_or_none()
        if beat is None:
            return False
        now = session.execute(sqlalchemy.func.now()).scalar()
        assert now is not None
        return bool(now.replace(tzinfo=None) - beat.heartbeat > timedelta(seconds=self._grace))

    def _lose(self, session: orm.Session, trial: Any, retries: int) -> Lost:
        reached, before = (
            steps_reported(session, trial.trial_id),
            system_attr(session, trial.trial_id, REACHED),
        )
        progress = reached > int(before or 0)
        times = 0 if progress else int(system_attr(session, trial.trial_id, LOST) or 0) + 1
        set_system_attr(session, trial.trial_id, LOST, times)
        if progress:
            set_system_attr(session, trial.trial_id, REACHED, reached)
        if times <= retries:
            to_waiting(session, trial)
        else:
            reason = f"its worker vanished {times} times at the same place (hydra.sweeper.retries={retries})"
            set_attr(session, models.TrialUserAttributeModel, trial.trial_id, "reason", reason)
            trial.state = TrialState.FAIL
            trial.datetime_complete = datetime.now()
        return Lost(trial.number, times, times <= retries)

    @patient
    def requeue_failed(self, study_id: int) -> int:
        """Queue all failed trials again, from their beginning, before any worker starts; gives their number."""
        with self._transaction() as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            failed = (
                session.query(models.TrialModel).filter_by(study_id=study_id, state=TrialState.FAIL).all()
            )
            for trial in failed:
                forget(session, trial.trial_id, ATTEMPT, REPORTS, REACHED, LOST)
                to_waiting(session, trial)
            return len(failed)


for _name in CALLED:
    setattr(SweepStorage, _name, patient(getattr(RDBStorage, _name)))


def _claimed(session: orm.Session, study_id: int, token: str) -> Claim | None:
    """What a claim has taken, though the answer was lost."""
    running = session.query(models.TrialModel).filter_by(study_id=study_id, state=TrialState.RUNNING)
    for trial in running:
        if (system_attr(session, trial.trial_id, CLAIM) or {}).get("token") == token:
            return Claim(trial.trial_id, trial.number, token)
    return None


def _next_number(session: orm.Session, study_id: int) -> int:
    # By id: numbers are given in its order, and it has an index.
    newest = (
        session.query(models.TrialModel.number)
        .filter_by(study_id=study_id)
        .order_by(models.TrialModel.trial_id.desc())
        .first()
    )
    return 0 if newest is None else int(newest[0]) + 1


def _new_trial(
    session: orm.Session,
    study_id: int,
    total: int,
    prepared: Callable[[int], Mapping[str, Any]],
    owner: Mapping[str, Any],
) -> Any:
    """The study's next trial, None where it has its total: another process may have made the last one meanwhile.

    Others wait for the study meanwhile: the database is asked as little as can be.
    """
    models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
    number = _next_number(session, study_id)
    if number >= total:
        return None
    trial = models.TrialModel(
        study_id=study_id, number=number, state=TrialState.RUNNING, datetime_start=datetime.now()
    )
    session.add(trial)
    session.flush()
    for key, value in {**prepared(number), CLAIM: owner}.items():
        add_system_attr(session, trial.trial_id, key, value)
    begin_beat(session, trial.trial_id)
    return trial


def _owned(session: orm.Session, claim: Claim) -> Any:
    trial = models.TrialModel.find_or_raise_by_id(claim.trial_id, session, for_update=True)
    if trial.state != TrialState.RUNNING or _token(session, claim) != claim.token:
        raise _taken(claim)
    return trial


def _taken(claim: Claim) -> LostClaim:
    return LostClaim(f"trial {claim.number} was given to another worker")


def _token(session: orm.Session, claim: Claim) -> str | None:
    holder = system_attr(session, claim.trial_id, CLAIM) or {}
    token: str | None = holder.get("token")
    return token


def _configure_sqlite(connection: Any, _: Any) -> None:
    # SQLAlchemy begins transactions itself (below): Python's sqlite3 would begin them without the write lock.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_storage(url: str, grace: float = GRACE_SECONDS, waits: bool = False) -> SweepStorage:
    """Open a storage, making its tables where they are missing; safe for many processes at once.

    Args:
        url: Address of the storage.
        grace: Seconds for which a server that is away is waited for, once it was there, and a file that is locked.
        waits: Whether a server is waited for from the first, as by a worker of a sweep that goes on.

    Raises:
        UserError: The address cannot be used; the message has the reason, and no password.
    """
    patience = Patience(grace)
    while True:
        try:
            with _making_tables(url):
                return SweepStorage(url, grace)
        except (
            sqlalchemy.exc.SQLAlchemyError,
            StorageInternalError,
            ImportError,
            OSError,
            RuntimeError,
        ) as error:
            if (is_locked(error) or (waits and is_away(error))) and patience.lasts(error):
                continue
            raise UserError(
                f"Cannot open the sweep's storage {mask(url)}: {first_line(error)}. Expected"
                " sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE (its password in PGPASSWORD or ~/.pgpass)."
            ) from error


@contextlib.contextmanager
def _making_tables(url: str) -> Iterator[None]:
    """Let one process at a time create tables: two that do so together both fail half-way."""
    if url.startswith("sqlite"):
        path = Path(sqlalchemy.make_url(url).database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=BUSY_SECONDS):
            yield
    elif url.startswith("postgresql"):
        connecting = engine_arguments(url)["connect_args"]
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=connecting)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(742398)"))
            yield
    else:
        yield
