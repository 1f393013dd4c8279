"""Delivering the journal of one run to every tracker that it goes to."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline.config.trackers import BESIDE_MLFLOW
from pipeline.tracking import journal, registry
from pipeline.tracking.delivery import Delivery, Held, NotYet, remove_copy
from pipeline.tracking.journal import Record
from pipeline.tracking.others import OtherDelivery


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
        self.uri = uri
        self.experiments_dir = experiments_dir
        names = [name for name in BESIDE_MLFLOW if (self.folder / journal.other_cursor(name)).exists()]
        self.parts: list[Delivery | OtherDelivery] = [
            OtherDelivery(directory, name, experiments_dir) for name in names
        ]
        if uri or not names:
            self.parts.insert(0, Delivery(directory, uri, experiments_dir, keeps_copies=bool(names)))
        self._held: dict[Delivery | OtherDelivery, Held] = {}

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
        """Deliver what there is, to each tracker whatever becomes of the others.

        Raises:
            Exception: What the first tracker that failed said.
        """
        errors: list[Exception] = []
        for part in self.parts:
            if part in self._held:
                continue
            try:
                part.deliver()
            except NotYet as error:
                errors.append(error)
            except Exception as error:
                with contextlib.suppress(OSError):
                    part.failed(error)
                if isinstance(error, Held):
                    self._held[part] = error
                else:
                    errors.append(error)
        self._forget()
        if errors:
            raise errors[0]
        if self._held and all(part in self._held or (part.finished and part.drained) for part in self.parts):
            raise next(iter(self._held.values()))

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
