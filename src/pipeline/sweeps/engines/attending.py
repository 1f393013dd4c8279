"""Watching workers until a sweep is done, whoever runs them; and leaving those that go on by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipeline.errors import Interrupted
from pipeline.sweeps.engines import Engine
from pipeline.sweeps.time_limit import halfway, seconds_left

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_ASK_SECONDS = 5.0
_MOST_SECONDS = 60.0


class Left(Interrupted):
    """The command ends, and the workers go on."""


def attend(
    engine: Engine,
    on_change: Callable[[], None],
    deadline: float | None = None,
    ends: float | None = None,
) -> None:
    """Start the workers and wait until all have nothing left to do.

    Args:
        engine: Engine that runs them.
        on_change: Function called a few times a second.
        deadline: When they stop by themselves (seconds since 1970); None for no limit. One that is not there yet, or is
            at something that takes long, is stopped from here, so that the results are written in time.
        ends: When the command has to end.

    Raises:
        Left: Ctrl-C or SIGTERM came, and the engine's workers go on.
        KeyboardInterrupt, Interrupted: One came, and all workers have stopped.
        WorkersFailed: The workers keep dying.
    """
    try:
        until = halfway(deadline, ends)
        if seconds_left(until, 1.0):
            engine.start()
        while engine.look() and seconds_left(until, 1.0):
            on_change()
            time.sleep(_POLL_SECONDS)
    except (KeyboardInterrupt, Interrupted) as stop:
        if not engine.outlives:
            raise
        if isinstance(stop, KeyboardInterrupt):
            _ask(engine)
        raise Left(getattr(stop, "exit_code", 130)) from None
    finally:
        if not engine.outlives:
            engine.stop(None if ends is None else seconds_left(ends, _MOST_SECONDS) / 2)


def _ask(engine: Engine) -> None:
    log.warning(
        "The workers go on without this command; give it again to watch them. Ctrl-C within %g s ends them too.",
        _ASK_SECONDS,
    )
    try:
        time.sleep(_ASK_SECONDS)
    except KeyboardInterrupt:
        engine.stop()
        raise
