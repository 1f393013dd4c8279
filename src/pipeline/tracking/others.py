"""Delivering the journal of one run to a tracker beside MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.masking import mask
from pipeline.tracking import journal, registry
from pipeline.tracking.backlog import Backlog, Entry, OfOneRun
from pipeline.tracking.journal import Record

_CLASSES = {
    "wandb": "to_wandb.WandbWriter",
    "trackio": "to_trackio.TrackioWriter",
    "comet": "to_comet.CometWriter",
}

_SETTINGS = {"params", "tags", "dataset", "resume", "finish"}


@dataclass(frozen=True)
class Described:
    """What a tracker has to know of a run before its first record.

    Args:
        key: Client-side key, which names the run in every tracker: a hexadecimal number of 32 digits.
        name: Name of the run.
        project: Experiment that it belongs to.
        group: Client-side key of the run that it is nested under; None where there is none.
        tags: First tags, without those that only MLflow reads.
        folder: The run's tracking folder, which files of the journal lie below.
        kept_in: Directory of the tracker's own files.
        kept_to: Bytes of the journal that the tracker has kept for certain.
        earlier: Records before that of settings, tags, data and the run's end.
    """

    key: str
    name: str
    project: str
    group: str | None
    tags: Mapping[str, str]
    folder: Path
    kept_in: Path
    kept_to: int = 0
    earlier: Sequence[Record] = ()


@dataclass
class Sent:
    """A record as a tracker is given it.

    Args:
        record: The record; of metrics, what an earlier attempt delivered is left out.
        number: Place of the record in the journal, the same whenever it is sent.
        values: Metrics by name, as numbers.
    """

    record: Record
    number: int
    values: dict[str, float] = field(default_factory=dict)

    @property
    def axis(self) -> str | None:
        """What the values' ``step`` counts: ``epoch`` or ``optimiser_step``; None for values of the whole run."""
        if self.record.get("step") is None:
            return None
        return "optimiser_step" if self.record.get("by") == "step" else "epoch"

    def files(self, folder: Path) -> list[tuple[Path, str]]:
        """The files that the record brings, each with its path among the run's files."""
        kind = self.record["t"]
        if kind not in ("artifact", "model"):
            return []
        source = folder / self.record["file" if kind == "artifact" else "bundle"]
        place = self.record["folder"] if kind == "artifact" else ""
        name = source.name if kind == "artifact" else self.record["name"]
        paths = (
            [path for path in sorted(source.rglob("*")) if path.is_file()] if source.is_dir() else [source]
        )
        return [(path, str(Path(place, name, path.relative_to(source)))) for path in paths if path.exists()]


class Writer(Protocol):
    """A tracker, as one run sees it."""

    live: bool
    """Whether it is given records as they come; otherwise all of them once the run has ended."""
    keeps_at_once: bool
    """Whether what it was given is kept for certain when ``send`` returns; otherwise when ``end`` does."""

    def send(self, entries: Sequence[Sent]) -> None:
        """Take records. Those of the same number may come again after a crash, and are to count once."""

    def end(self) -> None:
        """Keep everything; the run has ended, and may be taken up again later by another writer."""

    def give_up(self) -> None:
        """Let go of everything after an error, without keeping it."""


class OtherDelivery(OfOneRun):
    """Delivers one run's journal to a tracker beside MLflow. Whoever holds one must hold the run's `sender.lock`.

    Args:
        directory: Directory of the run.
        tracker: Name of the tracker.
        experiments_dir: Directory below which trackers keep their own files.
    """

    def __init__(self, directory: Path, tracker: str, experiments_dir: Path) -> None:
        self.folder = registry.tracking_folder(directory)
        self._tracker = tracker
        self._kept_in = experiments_dir / tracker
        self._file = journal.other_cursor(tracker)
        self.cursor = journal.Cursor.load(self.folder, self._file)
        self._writer: Writer | None = None
        self._begin()

    def _begin(self) -> None:
        self._backlog = Backlog(self.folder / journal.JOURNAL, self.cursor)

    @property
    def drained(self) -> bool:
        """Whether nothing is left to deliver at this moment."""
        return self._backlog.drained and not (self.finished and self._is_behind())

    def _is_behind(self) -> bool:
        return journal.pending_bytes(self.folder / journal.JOURNAL, self.cursor.offset)

    def deliver(self) -> None:
        """Deliver what there is.

        Raises:
            Exception: The tracker is down, slow or failing; try again later.
        """
        self._backlog.read()
        if not self._backlog.start or not (self._is_behind() or self._writer):
            return
        writer = self._writer = self._writer or self._made()
        if not writer.live and not self.finished:
            return
        try:
            self._deliver(writer)
        except Exception:
            # From the last place that is kept for certain, by a writer of its own.
            writer.give_up()
            self._writer = None
            self._begin()
            raise
        if self.cursor.failing_since is not None:
            self._note(self.cursor.offset)

    def _deliver(self, writer: Writer) -> None:
        end = self.cursor.offset
        while group := self._backlog.next_group():
            end = group[-1].end
            self.cursor.sending = max(self.cursor.sending, end)
            self.cursor.save(self.folder, self._file)
            writer.send([self._sent(entry) for entry in group])
            self._backlog.drop(group)
            if writer.keeps_at_once:
                self._note(end)
            self._backlog.read()
        if self.finished:
            writer.end()
            self._writer = None
            self._note(end)

    def failed(self, error: Exception) -> None:
        """Note a failed delivery where the run's owner and `sync` see it."""
        if self.cursor.failing_since is None:
            self.cursor.failing_since = time.time()
        self.cursor.error = f"{self._tracker}: {mask(str(error)) or type(error).__name__}"[:500]
        self.cursor.save(self.folder, self._file)

    def close(self) -> None:
        """Let go of the tracker; what it does not keep for certain is sent again by the next one."""
        if self._writer is not None:
            self._writer.give_up()
            self._writer = None

    def _note(self, offset: int) -> None:
        self.cursor.offset = offset
        self.cursor.failing_since = self.cursor.error = None
        self.cursor.save(self.folder, self._file)

    def _sent(self, entry: Entry) -> Sent:
        values = {}
        if entry.record["t"] == "metrics":
            values = {
                name: journal.decode_value(value)
                for name, value in entry.record["v"].items()
                if not self._backlog.is_repeated(entry, name, value)
            }
        return Sent(entry.record, entry.number, values)

    def _made(self) -> Writer:
        module, _, name = _CLASSES[self._tracker].partition(".")
        start = self._backlog.start
        parent = start["parent"]
        described = Described(
            key=start["key"],
            name=start["tags"].get("mlflow.runName", start["name"]),
            project=start["experiment"],
            group=parent and parent["key"],
            tags={name: value for name, value in start["tags"].items() if _is_general(name)},
            folder=self.folder,
            kept_in=self._kept_in,
            kept_to=self.cursor.offset,
            earlier=[
                record
                for record, end in journal.read(self.folder / journal.JOURNAL)
                if end <= self.cursor.offset and record["t"] in _SETTINGS
            ],
        )
        found: Any = getattr(import_module(f"pipeline.tracking.{module}"), name)
        made: Writer = found(described)
        return made


def _is_general(tag: str) -> bool:
    return not tag.startswith("mlflow.") or tag == "mlflow.source.git.commit"
