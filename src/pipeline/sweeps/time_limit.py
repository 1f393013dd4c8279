"""The end of a sweep's time: the trial that runs saves its state and waits to go on, and the command ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import TypedDict

from pipeline.process_life import EXIT_CODES

_END_SHARE, _END_SECONDS = 0.1, 6.0


def deadline(started: float, seconds: float) -> float:
    """When trials have to end, so that a command ends in time: what comes after them takes some seconds.

    Args:
        started: When the command began, in seconds since 1970.
        seconds: What it may take in all, in seconds.
    """
    return started + seconds - min(_END_SECONDS, _END_SHARE * seconds)


def halfway(deadline: float | None, ends: float | None) -> float | None:
    """Until when workers may take to save their trials and to have them delivered; the other half is for the results.

    Args:
        deadline: When trials have to end, in seconds since 1970; None for no limit.
        ends: When the command has to.
    """
    return None if deadline is None or ends is None else (deadline + ends) / 2


class Limits(TypedDict):
    """What a plan keeps of a command's time."""

    deadline: float | None
    ends: float | None


def limits(started: float, timeout: float | None) -> Limits:
    """When trials have to end, and when the command, as a plan keeps it.

    Args:
        started: When the command began, in seconds since 1970.
        timeout: What it may take in all, in seconds; None for no limit.
    """
    if timeout is None:
        return {"deadline": None, "ends": None}
    return {"deadline": deadline(started, float(timeout)), "ends": started + float(timeout)}


def seconds_left(ends: float | None, most: float) -> float:
    """What may still be waited for others, in seconds.

    Args:
        ends: When the command is to be over, in seconds since 1970; None for no limit.
        most: Largest number of seconds.
    """
    return most if ends is None else min(most, max(0.0, ends - time.time()))


class TimeLimit:
    """Ends what runs at a moment, as a signal to stop does: a fit saves its state at the end of its step.

    Args:
        moment: The moment, in seconds since 1970; None for no limit.
    """

    def __init__(self, moment: float | None) -> None:
        self.outside: int | None = None
        """Exit code of a signal that came from elsewhere to a trial that it watched over; None where none did."""
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
        # Who sent a signal is not told to its handler: each that arrives is counted here, whoever answers it.
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._runs = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._runs = False
            signal.set_wakeup_fd(before)
            self._look_at(ours)
            ours.close()
            theirs.close()

    def _look_at(self, arrived: socket.socket) -> None:
        try:
            numbers = list(arrived.recv(4096))
        except BlockingIOError:
            return
        if self.ended and signal.SIGTERM in numbers:
            numbers.remove(signal.SIGTERM)
        self.outside = next((EXIT_CODES[signal.Signals(n)] for n in numbers if n in EXIT_CODES), None)

    def _end(self) -> None:
        with self._lock:
            if self._runs:
                self.ended = True
                os.kill(os.getpid(), signal.SIGTERM)
