"""Waiting for a database server that is away for a moment: a restart, or a failover, must not end a sweep."""

from __future__ import annotations

import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import filelock
import sqlalchemy

from pipeline.config.masking import mask
from pipeline.errors import Interrupted

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)

Function = TypeVar("Function", bound=Callable[..., Any])


class Patience:
    """Longer and longer pauses between tries, until a grace is over. The first try that fails says so.

    Args:
        grace: Seconds from the first failure after which there is no other try.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._deadline: float | None = None
        self._pause = _FIRST_SECONDS

    def lasts(self, error: BaseException) -> bool:
        """Wait for another try; False at once where it would come after the grace.

        Args:
            error: What the last one failed with.
        """
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._grace
            log.warning(
                "The sweep's storage does not answer (%s); trying again for %g s",
                first_line(error),
                self._grace,
            )
        if now + self._pause > self._deadline:
            return False
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_SECONDS)
        return True


class _Graceful(Protocol):
    _grace: float
    _ready: bool


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database server could not be reached, not that what it was told was wrong."""
    return any(_tells_of_a_lost_connection(cause) for cause in _causes(error))


def _tells_of_a_lost_connection(error: BaseException) -> bool:
    if isinstance(error, sqlalchemy.exc.PendingRollbackError):
        # What was lost before it is rolled back by now.
        return True
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return False
    # A file is never away: what SQLite could not do after its own long wait, it will not do after another.
    of_a_file = type(error.orig).__module__.startswith("sqlite3")
    # A connection that breaks in the middle of an answer is an error of no class, which SQLAlchemy sees by its state.
    kinds = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
    return not of_a_file and (isinstance(error, kinds) or error.connection_invalidated)


def is_locked(error: BaseException) -> bool:
    """Whether an error says that a file of SQLite's is in use.

    SQLite waits for that by itself, but not where it is to change the file's journal, nor to write after it has read.
    """
    return isinstance(error, filelock.Timeout) or any(
        isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF in _BUSY
        for cause in _causes(error)
    )


def _interruption(error: BaseException) -> BaseException | None:
    """The signal that came while a library was at the error: psycopg cannot tidy up in the middle of a question."""
    before = error.__context__
    while before is not None and not isinstance(before, KeyboardInterrupt | Interrupted):
        before = before.__context__
    return before


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def patient(method: Function) -> Function:
    """A method of a storage that is tried again, with longer and longer pauses, until the storage's grace is over.

    What was written before the connection broke may be there or not: the method must come to the same either way.
    """

    @functools.wraps(method)
    def tried(storage: _Graceful, *arguments: Any, **named: Any) -> Any:
        patience = Patience(storage._grace)
        while True:
            try:
                return method(storage, *arguments, **named)
            except Exception as error:
                if (interruption := _interruption(error)) is not None:
                    raise interruption from None
                if not storage._ready or not is_away(error) or not patience.lasts(error):
                    raise

    return cast(Function, tried)


def first_line(error: BaseException) -> str:
    """What the database's driver said, in one line and without a password."""
    last = list(_causes(error))[-1]
    said = str(getattr(last, "orig", None) or last).strip()
    return mask(said.splitlines()[0]) if said else type(last).__name__
