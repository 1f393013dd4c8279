"""Watching workers until a sweep is done, whoever runs them; and leaving those that go on by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipeline.errors import Interrupted
from pipeline.sweeps.engines import Engine

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_ASK_SECONDS = 5.0


class Left(Interrupted):
    """The command ends, and the workers go on."""


def attend(engine: Engine, on_change: Callable[[], None]) -> None:
    """Start the workers and wait until all have nothing left to do.

    Args:
        engine: Engine that runs them.
        on_change: Function called a few times a second.

    Raises:
        Left: Ctrl-C or SIGTERM came, and the engine's workers go on.
        KeyboardInterrupt, Interrupted: One came, and all workers have stopped.
        WorkersFailed: The workers keep dying.
    """
    try:
        engine.start()
        while engine.look():
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
            engine.stop()


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
