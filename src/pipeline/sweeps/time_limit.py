"""The end of a sweep's time: the trial that runs saves its state and waits to go on, and the command ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

_END_SHARE, _END_SECONDS = 0.1, 6.0


def deadline(started: float, seconds: float) -> float:
    """When trials have to end, so that a command ends in time: what comes after them takes some seconds.

    Args:
        started: When the command began, in seconds since 1970.
        seconds: What it may take in all, in seconds.
    """
    return started + seconds - min(_END_SECONDS, _END_SHARE * seconds)


class TimeLimit:
    """Ends what runs at a moment, as a signal to stop does: a fit saves its state at the end of its step.

    Args:
        moment: The moment, in seconds since 1970; None for no limit.
    """

    def __init__(self, moment: float | None) -> None:
        self._moment = moment
        self._lock = threading.Lock()
        self._runs = False
        self.ended = False
        """Whether it has ended something."""

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.ended or (self._moment is not None and time.time() > self._moment)

    @contextlib.contextmanager
    def of_a_trial(self) -> Iterator[None]:
        """Send this process SIGTERM if the moment comes within the block, which has to answer it.

        Outside of the main thread nothing is sent, since nothing could answer: a trial runs to its end there.
        """
        if self._moment is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        timer = threading.Timer(max(0.0, self._moment - time.time()), self._end)
        timer.daemon = True
        self._runs = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._runs = False

    def _end(self) -> None:
        with self._lock:
            if self._runs:
                self.ended = True
                os.kill(os.getpid(), signal.SIGTERM)
