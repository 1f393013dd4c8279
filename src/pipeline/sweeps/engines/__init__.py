"""What keeps a sweep's workers alive: processes of this machine, SLURM. The database alone coordinates them."""

from __future__ import annotations

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

    def stop(self) -> None:
        """End all workers, each of which saves the state of its trial and gives it back."""


class WorkersFailed(RuntimeError):
    """No worker could be kept alive; the message names the log that says why."""


DEATHS_IN_A_ROW = 3
"""Deaths without a trial finished between them after which a worker is not replaced."""
