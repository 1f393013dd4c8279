"""When a fit has to end before it is done: its time is over, or a signal has come."""

from __future__ import annotations

import time

from pipeline.training.signals import Signals


class Stop:
    """Asked between two rounds of a fit whether to end it.

    Args:
        signals: What notes a signal.
        max_time: ``trainer.max_time`` (DD:HH:MM:SS), None for any time.

    Attributes:
        out_of_time: Whether the time was over when it was last asked.
    """

    def __init__(self, signals: Signals, max_time: str | None) -> None:
        self.signals, self.began, self.seconds = signals, time.monotonic(), seconds_of(max_time)
        self.out_of_time = False

    def __call__(self) -> bool:
        """Whether the time is over.

        Raises:
            Interrupted: A signal has come.
        """
        self.signals.check()
        self.out_of_time = self.seconds is not None and time.monotonic() - self.began > self.seconds
        return self.out_of_time


def seconds_of(max_time: str | None) -> float | None:
    """``trainer.max_time`` (DD:HH:MM:SS) in seconds."""
    if max_time is None:
        return None
    days, hours, minutes, seconds = (int(number) for number in str(max_time).split(":"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def in_full(seconds: float) -> str:
    """Seconds as ``trainer.max_time`` takes them: DD:HH:MM:SS, at least one second."""
    whole = max(1, int(seconds))
    return f"{whole // 86400:02d}:{whole // 3600 % 24:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
