"""What is shown of work that takes a while: a bar on a terminal, a line everywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")


def shown(things: Iterable[Thing], total: float, what: str, bar: bool = True) -> Iterator[Thing]:
    """The things themselves, with a bar on a terminal while they are gone through.

    Args:
        things: Things to go through.
        total: Number of them.
        what: What is done with them, in words.
        bar: Whether a bar may be shown at all.
    """
    log.info("%s", what)
    if not (bar and sys.stderr.isatty()):
        yield from things
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(things, total=total, description=what, console=Console(stderr=True))
