"""Delivering the journal of one run to every tracker that it goes to."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.trackers import BESIDE_MLFLOW
from pipeline.tracking import journal, registry
from pipeline.tracking.delivery import Delivery, Held, NotYet, remove_copy
from pipeline.tracking.journal import Record
from pipeline.tracking.others import OtherDelivery

_LONGEST_PAUSE_SECONDS = 5.0
_PAUSE_SHARE = 4.0


@dataclass
class _State:
    """What becomes of one tracker: how often in a row it failed, when it is tried again, and whether it is given up."""

    failures: int = 0
    due: float = 0.0
    held: Held | None = None

    def fail(self, least: float) -> None:
        """Note a failure, after which it has a pause of at least some seconds."""
        self.failures += 1
        pause = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2 ** min(self.failures, 8))
        self.due = time.monotonic() + max(pause, least)


class Deliveries:
    """One run's journal, on its way. Whoever holds one must hold the run's `sender.lock`.

    Each tracker is at a place of its own in the journal: one that is down does not keep the others waiting.

    Args:
        directory: Directory of the run.
        uri: Address of the MLflow store to deliver to; empty where MLflow is not told.
        experiments_dir: Directory in which the run is registered, and in which trackers keep files.
    """

    def __init__(self, directory: Path, uri: str, experiments_dir: Path) -> None:
        self.directory = directory
        self.folder = registry.tracking_folder(directory)
        # Whoever takes up a run may not tell MLflow himself; what that has of it is told to its end.
        self.uri = uri = uri or journal.mlflow_address(self.folder)
        self.experiments_dir = experiments_dir
        names = [name for name in BESIDE_MLFLOW if (self.folder / journal.other_cursor(name)).exists()]
        self.parts: list[Delivery | OtherDelivery] = [
            OtherDelivery(directory, name, experiments_dir) for name in names
        ]
        if uri or not names:
            self.parts.insert(0, Delivery(directory, uri, experiments_dir, keeps_copies=bool(names)))
        self._states = {part: _State() for part in self.parts}

    @property
    def start(self) -> Record:
        """The record of the run's start; empty where the journal does not begin with one."""
        return self.parts[0].start

    @property
    def finished(self) -> bool:
        """Whether the run has ended, as far as its journal was read."""
        return all(part.finished for part in self.parts)

    @property
    def drained(self) -> bool:
        """Whether nothing is left to deliver at this moment."""
        return all(part.drained for part in self.parts)

    def deliver(self) -> None:
        """Deliver what there is, to each tracker whatever becomes of the others. One that failed is left its pause.

        Raises:
            Exception: What the first tracker that failed said.
        """
        errors: list[Exception] = []
        for part, state in self._states.items():
            began = time.monotonic()
            if state.held is not None or began < state.due:
                continue
            try:
                part.deliver()
                state.failures = 0
            except NotYet as error:
                errors.append(error)
            except Exception as error:
                with contextlib.suppress(OSError):
                    part.failed(error)
                if isinstance(error, Held):
                    state.held = error
                else:
                    # One beside MLflow whose failing takes long is tried the less often: MLflow waits for it.
                    beside = isinstance(part, OtherDelivery)
                    state.fail(_PAUSE_SHARE * (time.monotonic() - began) if beside else 0.0)
                    errors.append(error)
        self._forget()
        if errors:
            raise errors[0]
        held = [state.held for state in self._states.values() if state.held is not None]
        if held and all(
            state.held or (part.finished and part.drained) for part, state in self._states.items()
        ):
            raise held[0]

    @property
    def failures(self) -> int:
        """How often in a row the tracker failed that fails most."""
        return max(state.failures for state in self._states.values())

    @property
    def first_failures(self) -> int:
        """How often in a row the first tracker failed, which is MLflow where that is told."""
        return self._states[self.parts[0]].failures

    @property
    def due(self) -> float:
        """When the first of those that failed is tried again, by the monotonic clock; infinite where none failed."""
        return min((state.due for state in self._states.values() if state.failures), default=float("inf"))

    def try_again(self) -> None:
        """Try what was given up, now that somebody has stepped in."""
        for state in self._states.values():
            state.held = None

    def close(self) -> None:
        """Let go of every tracker."""
        for part in self.parts:
            if isinstance(part, OtherDelivery):
                part.close()

    def _forget(self) -> None:
        """Have the run no longer counted among those with something left to deliver, if it is so."""
        # A run that is resumed at this moment is registered anew and writes its record under the same lock.
        with journal.locked(self.folder / "writer.lock"):
            if not (self.finished and self.drained):
                return
            if len(self.parts) > 1 or not self.uri:
                for record, _ in journal.read(self.folder / journal.JOURNAL):
                    remove_copy(self.folder, record)
            registry.unregister(self.experiments_dir, self.start["key"])
