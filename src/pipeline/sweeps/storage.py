"""Where a study is kept: Optuna's relational storage, with trials that are queued, claimed and given back atomically.

Optuna's own way (ask, tell, a callback that adds a trial for every lost one) cannot promise a total: two workers may
claim one waiting trial on SQLite, and a retry gets a number of its own. Here every step is one transaction.
"""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import orm

from pipeline.config.masking import holds_secret, mask
from pipeline.errors import UserError
from pipeline.sweeps.optuna_inside import FIXED, models, write_value
from pipeline.tracking import process

CLAIM = "sweep:claim"
LOST = "sweep:lost"
COMPLETE_SETTINGS = "sweep:settings"
# What a trial keeps when it is queued again.
_KEPT = (FIXED, LOST, "sweep:origin", "sweep:job")

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 60
# How long a process waits for SQLite's write lock: far longer than eight workers ever need.
_BUSY_SECONDS = 120


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


@dataclass(frozen=True)
class Lost:
    """A trial whose worker vanished: its number, how often that happened, and whether it will run again."""

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
            super().__init__(url, engine_kwargs=_engine_arguments(url))
        self._ready = True

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

    def enqueue_up_to(self, study_id: int, total: int, prepared: Sequence[Mapping[str, Any]] = ()) -> int:
        """Queue waiting trials until the study has `total`, however many processes do so at the same moment.

        Args:
            study_id: Optuna's id of the study.
            total: Number of trials that the study shall have in the end.
            prepared: System attributes of the first trials, by number (fixed values, where they come from).

        Returns:
            Number of trials that this call added.
        """
        with self._transaction() as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            count: int = session.query(models.TrialModel).filter_by(study_id=study_id).count()
            for number in range(count, total):
                trial = models.TrialModel(study_id=study_id, number=number, state=TrialState.WAITING)
                session.add(trial)
                session.flush()
                for key, value in (prepared[number] if number < len(prepared) else {}).items():
                    _set_system_attr(session, trial.trial_id, key, value)
            return max(total - count, 0)

    def claim(self, study_id: int, total: int) -> Claim | None:
        """Take the first waiting trial; None where none waits."""
        with self._transaction() as session:
            trial = (
                session.query(models.TrialModel)
                .filter_by(study_id=study_id, state=TrialState.WAITING)
                .filter(models.TrialModel.number < total)
                .order_by(models.TrialModel.number)
                .with_for_update(skip_locked=True)
                .first()
            )
            if trial is None:
                return None
            claim = Claim(trial.trial_id, trial.number, uuid.uuid4().hex)
            trial.state = TrialState.RUNNING
            trial.datetime_start = datetime.now()
            owner = {"token": claim.token, "owner": process.this_process(), "host": socket.gethostname()}
            _set_system_attr(session, trial.trial_id, CLAIM, owner)
            _beat(session, trial.trial_id)
            return claim

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
            _beat(session, claim.trial_id)
            return True

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
            trial = _owned(session, claim)
            for key, value in (attributes or {}).items():
                _set_attr(session, models.TrialUserAttributeModel, trial.trial_id, key, value)
            for objective, value in enumerate(values or ()):
                write_value(self, session, trial, objective, value)
            trial.state = state
            trial.datetime_complete = datetime.now()

    def give_back(self, claim: Claim) -> None:
        """Queue an interrupted trial again, under its own number and with its own values.

        Raises:
            LostClaim: The trial is no longer this worker's.
        """
        with self._transaction() as session:
            _to_waiting(session, _owned(session, claim))

    def reclaim(self, study_id: int, retries: int) -> list[Lost]:
        """Find trials whose worker is gone; queue them again, or fail them after `retries` times.

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
        claim = _system_attr(session, trial.trial_id, CLAIM)
        if claim is not None and not process.is_alive(claim["owner"]):
            return True
        beat = session.query(models.TrialHeartbeatModel).filter_by(trial_id=trial.trial_id).one_or_none()
        if beat is None:
            return False
        now = session.execute(sqlalchemy.func.now()).scalar()
        assert now is not None
        return bool(now.replace(tzinfo=None) - beat.heartbeat > timedelta(seconds=self._grace))

    def _lose(self, session: orm.Session, trial: Any, retries: int) -> Lost:
        times = int(_system_attr(session, trial.trial_id, LOST) or 0) + 1
        _set_system_attr(session, trial.trial_id, LOST, times)
        if times <= retries:
            _to_waiting(session, trial)
        else:
            reason = f"its worker vanished {times} times (hydra.sweeper.retries={retries})"
            _set_attr(session, models.TrialUserAttributeModel, trial.trial_id, "reason", reason)
            trial.state = TrialState.FAIL
            trial.datetime_complete = datetime.now()
        return Lost(trial.number, times, times <= retries)

    def requeue_failed(self, study_id: int) -> int:
        """Queue all failed trials again, before any worker starts; gives their number."""
        with self._transaction() as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            failed = (
                session.query(models.TrialModel).filter_by(study_id=study_id, state=TrialState.FAIL).all()
            )
            for trial in failed:
                _to_waiting(session, trial)
            return len(failed)


def _owned(session: orm.Session, claim: Claim) -> Any:
    trial = models.TrialModel.find_or_raise_by_id(claim.trial_id, session, for_update=True)
    holder = _system_attr(session, claim.trial_id, CLAIM) or {}
    if trial.state != TrialState.RUNNING or holder.get("token") != claim.token:
        raise LostClaim(f"trial {claim.number} was given to another worker")
    return trial


def _to_waiting(session: orm.Session, trial: Any) -> None:
    """Forget everything the attempt left but the values it was to run with."""
    attributes = {
        entry.key: json.loads(entry.value_json)
        for entry in session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial.trial_id)
    }
    if COMPLETE_SETTINGS in attributes:
        attributes[FIXED] = {**attributes.get(FIXED, {}), **attributes[COMPLETE_SETTINGS]}
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
            _set_system_attr(session, trial.trial_id, key, attributes[key])
    trial.state = TrialState.WAITING
    trial.datetime_start = None
    trial.datetime_complete = None


def _beat(session: orm.Session, trial_id: int) -> None:
    now = session.execute(sqlalchemy.func.now()).scalar()
    beat = session.query(models.TrialHeartbeatModel).filter_by(trial_id=trial_id).one_or_none()
    if beat is None:
        session.add(models.TrialHeartbeatModel(trial_id=trial_id, heartbeat=now))
    else:
        beat.heartbeat = now


def _system_attr(session: orm.Session, trial_id: int, key: str) -> Any:
    entry = (
        session.query(models.TrialSystemAttributeModel).filter_by(trial_id=trial_id, key=key).one_or_none()
    )
    return None if entry is None else json.loads(entry.value_json)


def _set_system_attr(session: orm.Session, trial_id: int, key: str, value: Any) -> None:
    _set_attr(session, models.TrialSystemAttributeModel, trial_id, key, value)


def _set_attr(session: orm.Session, table: Any, trial_id: int, key: str, value: Any) -> None:
    entry = session.query(table).filter_by(trial_id=trial_id, key=key).one_or_none()
    if entry is None:
        session.add(table(trial_id=trial_id, key=key, value_json=json.dumps(value)))
    else:
        entry.value_json = json.dumps(value)
    session.flush()


def _engine_arguments(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": _BUSY_SECONDS}}
    # A restarted server must not fail the first statement after it.
    return {"pool_pre_ping": True}


def _configure_sqlite(connection: Any, _: Any) -> None:
    # SQLAlchemy begins transactions itself (below): Python's sqlite3 would begin them without the write lock.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_storage(url: str, grace: float = GRACE_SECONDS) -> SweepStorage:
    """Open a storage, making its tables where they are missing; safe for many processes at once.

    Raises:
        UserError: The address cannot be used; the message has the reason, and no password.
    """
    try:
        with _making_tables(url):
            return SweepStorage(url, grace)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UserError(
            f"Cannot open the sweep's storage {mask(url)}: {mask(reason)}. Expected"
            " sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE (its password in PGPASSWORD or ~/.pgpass)."
        ) from error


@contextlib.contextmanager
def _making_tables(url: str) -> Iterator[None]:
    """Let one process at a time create tables: two that do so together both fail half-way."""
    if url.startswith("sqlite"):
        path = Path(sqlalchemy.make_url(url).database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_BUSY_SECONDS):
            yield
    elif url.startswith("postgresql"):
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(742398)"))
            yield
    else:
        yield


def storage_url(configured: str | None, experiments_dir: Path) -> str:
    """The address to use: SQLite in the experiments directory unless another is configured.

    Relative SQLite files become absolute, so that worker processes find the same file.
    """
    if configured is None:
        return f"sqlite:///{(experiments_dir / 'optuna.db').absolute()}"
    try:
        url = sqlalchemy.make_url(configured)
    except sqlalchemy.exc.ArgumentError as error:
        raise UserError(
            f"hydra.sweeper.storage={mask(configured)} is no address. Expected sqlite:///FILE or"
            " postgresql+psycopg://USER@HOST/DATABASE."
        ) from error
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UserError(
                "hydra.sweeper.storage: a study in memory cannot be resumed or shared; name a file."
            )
        return f"sqlite:///{Path(url.database).absolute()}"
    if url.drivername == "postgresql":
        # SQLAlchemy's default driver is psycopg2, this project's psycopg 3.
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def refuse_written_password(raw: Any) -> None:
    """Refuse a password typed into the configuration, which would land in files; the environment may give one.

    Args:
        raw: `hydra.sweeper.storage` as written, interpolations unresolved.

    Raises:
        UserError: The setting holds a password.
    """
    if isinstance(raw, str) and "${" not in raw and holds_secret(raw):
        raise UserError(
            f"hydra.sweeper.storage={mask(raw)} holds a password, and configurations are written to files."
            " Leave it out and set PGPASSWORD, or name a variable: hydra.sweeper.storage='${oc.env:PIPELINE_STORAGE}'."
        )
