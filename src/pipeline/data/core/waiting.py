"""What is shown of work that takes a while: a bar on a terminal, lines everywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")

_LINE_SECONDS = 30.0
"""A log is told no more often than that, and of whole tenths alone."""


def shown(things: Iterable[Thing], total: float, what: str, bar: bool = True) -> Iterator[Thing]:
    """The things themselves, with a bar on a terminal while they are gone through, and a line now and then in a log.

    Args:
        things: Things to go through.
        total: Number of them.
        what: What is done with them, in words.
        bar: Whether that may be shown at all.
    """
    log.info("%s", what)
    if not bar:
        yield from things
        return
    if not sys.stderr.isatty():
        yield from _told(things, total, what)
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(things, total=total, description=what, console=Console(stderr=True))


def _told(things: Iterable[Thing], total: float, what: str) -> Iterator[Thing]:
    began = said = time.monotonic()
    tenth = 0
    for done, thing in enumerate(things):
        now = time.monotonic()
        if done and now - said >= _LINE_SECONDS and int(10 * done / total) > tenth:
            said, tenth = now, int(10 * done / total)
            left = (now - began) * (total - done) / done
            much = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
            log.info("%s: %d %%, about %s left", what, round(100 * done / total), much)
        yield thing
