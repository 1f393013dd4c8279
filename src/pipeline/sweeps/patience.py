"""Waiting for a database server that is away for a moment: a restart, or a failover, must not end a sweep."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import sqlalchemy

from pipeline.config.masking import mask

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0

Function = TypeVar("Function", bound=Callable[..., Any])


class _Graceful(Protocol):
    _grace: float
    _ready: bool


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database server could not be reached, not that what it was told was wrong."""
    return any(
        isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
        # A file is never away: what SQLite could not do after its own long wait, it will not do after another.
        and not type(cause.orig).__module__.startswith("sqlite3")
        for cause in _causes(error)
    )


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
        deadline, pause = None, _FIRST_SECONDS
        while True:
            try:
                return method(storage, *arguments, **named)
            except Exception as error:
                if not storage._ready or not is_away(error):
                    raise
                now = time.monotonic()
                if deadline is None:
                    deadline = now + storage._grace
                    log.warning(
                        "The sweep's storage does not answer (%s); trying again for %g s",
                        first_line(error),
                        storage._grace,
                    )
                if now + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_SECONDS)

    return cast(Function, tried)


def first_line(error: BaseException) -> str:
    """What the database's driver said, in one line and without a password."""
    last = list(_causes(error))[-1]
    said = str(getattr(last, "orig", None) or last).strip()
    return mask(said.splitlines()[0]) if said else type(last).__name__
