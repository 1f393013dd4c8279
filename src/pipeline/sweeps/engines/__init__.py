"""What keeps a sweep's workers alive: processes of this machine, SLURM, Ray. The database alone coordinates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Engine(Protocol):
    """Keeps workers alive, and knows nothing of what they do."""

    outlives: bool
    """Whether its workers go on when the command that started them has ended."""

    def start(self) -> None:
        """Have as many workers as are wanted; those that an earlier command left count."""

    def look(self) -> bool:
        """Replace workers that are gone; gives whether the sweep goes on.

        Raises:
            WorkersFailed: No worker can be kept alive.
        """

    def stop(self, seconds: float | None = None) -> None:
        """End all workers, each of which saves the state of its trial and gives it back.

        Args:
            seconds: Longest time to wait for that; None for the engine's own.
        """


@dataclass(frozen=True)
class Work:
    """What an engine of other machines knows of a sweep.

    Args:
        study: Name of the study.
        url: Address of its storage, without a password.
        directory: Directory of the sweep, for logs.
        wanted: Function that gives how many workers there is work for.
        running: Function that gives the number of trials that run.
        finished: Function that gives the number of finished trials.
        on_lost: Function called where workers are gone.
    """

    study: str
    url: str
    directory: Path
    wanted: Callable[[], int]
    running: Callable[[], int]
    finished: Callable[[], int]
    on_lost: Callable[[], None]


class WorkersFailed(RuntimeError):
    """No worker could be kept alive; the message names the log that says why."""


DEATHS_IN_A_ROW = 3
"""Deaths without a trial finished between them after which a worker is not replaced."""


LOST_SECONDS = 10.0
"""How often trials of workers that are gone are looked for, where as many workers are there as are wanted."""


class Starts:
    """How often workers on other machines were started in a row without a trial finished in between."""

    def __init__(self) -> None:
        self._in_a_row, self._finished = 0, -1

    def may_go_on(self, finished: int) -> bool:
        """Whether workers are to be started, with so many trials finished by now."""
        return self._with(finished) <= DEATHS_IN_A_ROW

    def note(self, finished: int) -> None:
        """Count workers that were started."""
        self._in_a_row, self._finished = self._with(finished), finished

    def _with(self, finished: int) -> int:
        return 1 if finished > self._finished else self._in_a_row + 1
