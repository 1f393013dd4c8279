"""How much time a command has, and what is left of it."""

from __future__ import annotations

import math
import time

from pipeline.errors import UserError
from pipeline.process_life import process_start

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RESERVE, _LEAST_RESERVE = 0.05, 3.0
"""Share of the whole, and seconds, that the test, the report and the end of the process take at least."""
_AS_START, _MOST_OF_START = 1.2, 0.25
"""On a slow or busy machine they take longer, as the start did: so many times as long, up to a share of the whole."""

_OF_THE_REPORT = 0.5
"""Share of that time which comes after the tests."""


class Budget:
    """The time from the command's start to its end.

    Args:
        asked: ``90s``, ``20m``, ``2h``, a number of seconds, or None for any time.
        began: Time (seconds since 1970) at which it began; None for the start of the process.

    Raises:
        UserError: It is none of these, or over before anything was tried.

    Example:
        >>> Budget(None).left()
        inf
    """

    def __init__(self, asked: str | float | None, began: float | None = None) -> None:
        self.seconds = math.inf if asked is None else _seconds(str(asked))
        self.began = process_start() if began is None else began
        start = min(_AS_START * (time.time() - self.began), _MOST_OF_START * self.seconds)
        self._end = max(_LEAST_RESERVE, _RESERVE * self.seconds, start) if self.limited else 0.0
        self._kept = 0.0
        if self.left() <= 0:
            raise UserError(
                f"task.budget={asked} is over before anything was tried: starting takes some seconds; give it 30s "
                "or more"
            )

    def keep_back(self, seconds: float) -> None:
        """Leave so many seconds more for the end: for the test of a model that is slow to ask."""
        self._kept += seconds

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.seconds)

    def left(self) -> float:
        """Seconds that may be spent before the test and the report."""
        return self.seconds - self._end - self._kept - (time.time() - self.began)

    def left_for_tests(self) -> float:
        """Seconds that tests may take where they can be left out: the report and the end have their time."""
        return self.seconds - _OF_THE_REPORT * self._end - (time.time() - self.began)


def _seconds(asked: str) -> float:
    number, unit = (asked[:-1], asked[-1]) if asked[-1:] in _UNITS else (asked, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf:
        raise UserError(f"task.budget={asked}: expected a time like 90s, 20m or 2h")
    return seconds
