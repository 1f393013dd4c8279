"""What of a journal is still to be delivered: in order, and without what a later attempt of the run replaced."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.tracking import journal
from pipeline.tracking.journal import Record
from pipeline.tracking.mlflow_inside import METRICS_AT_ONCE, PARAMS_OR_TAGS_AT_ONCE

BATCHED = {"metrics", "params", "tags"}
"""Kinds of records that go out many at once."""
WITHOUT_DELIVERY = {"rewind", "damaged"}
"""Kinds of records that the store is not told of."""


@dataclass
class Entry:
    """A record that waits, the offset after it, how many attempts of the run and how many records came before it."""

    record: Record
    end: int
    attempt: int
    number: int = 0


class Backlog:
    """The records of a journal that wait, and what is known of those that were delivered.

    Args:
        path: The journal.
        cursor: How far the journal was delivered, kept up to date by whoever delivers.
    """

    def __init__(self, path: Path, cursor: journal.Cursor) -> None:
        self.start: Record = {}
        self.finished = False
        self._path = path
        self._cursor = cursor
        self._queue: deque[Entry] = deque()
        self._read_to = 0
        self._attempt = self._count = 0
        self._waiting: dict[tuple[str, int], Entry] = {}
        self._delivered: dict[tuple[str, int | None], tuple[int, float | str]] = {}
        self._catch_up()

    @property
    def drained(self) -> bool:
        """Whether nothing waits and nothing more was written."""
        return not self._queue and not journal.pending_bytes(self._path, self._read_to)

    def _catch_up(self) -> None:
        """Read again what was delivered before, to know which metrics have arrived."""
        self.read()
        while self._queue and self._queue[0].end <= self._cursor.offset:
            self._note_delivered(self._queue.popleft())

    def read(self) -> None:
        """Take in what the run has written since."""
        for record, end in journal.read(self._path, self._read_to):
            entry = Entry(record, end, self._attempt, self._count)
            self._count += 1
            if record["t"] == "start":
                self.start = record
            if record["t"] in ("resume", "rewind"):
                self._begin_attempt(record)
            elif record["t"] == "metrics":
                self._supersede(record)
            self.finished = record["t"] == "finish" or (self.finished and record["t"] != "resume")
            self._queue.append(entry)
            self._read_to = end

    def _begin_attempt(self, record: Record) -> None:
        """Have later records of the same step replace what waits so far, which is of an earlier attempt."""
        self._attempt += 1
        self._waiting.clear()
        for entry in self._queue:
            # Up to `sending` a record may have arrived already: it has to be sent again as it is.
            step = entry.record.get("step")
            if entry.record["t"] != "metrics" or entry.end <= self._cursor.sending or step is None:
                continue
            last = record.get("optimiser_step" if entry.record.get("by") == "step" else "step")
            if record["t"] == "rewind" and last is not None and step > last:
                entry.record["v"].clear()
            self._waiting.update({(name, step): entry for name in entry.record["v"]})

    def _supersede(self, record: Record) -> None:
        if self._waiting and record["step"] is not None:
            for name in record["v"]:
                if earlier := self._waiting.pop((name, record["step"]), None):
                    del earlier.record["v"][name]

    def _note_delivered(self, entry: Entry) -> None:
        if entry.record["t"] == "metrics":
            for name, value in entry.record["v"].items():
                self._delivered[name, entry.record["step"]] = (entry.attempt, value)

    def drop(self, group: Sequence[Entry]) -> None:
        """Note that the first entries, which are those of ``group``, have arrived."""
        for entry in group:
            self._queue.popleft()
            self._note_delivered(entry)

    def is_repeated(self, entry: Entry, name: str, value: float | str) -> bool:
        """Whether an earlier attempt delivered it: the same step, or the same value where there is no step."""
        step = entry.record["step"]
        attempt, earlier = self._delivered.get((name, step), (entry.attempt, value))
        return attempt < entry.attempt and (step is not None or earlier == value)

    def next_group(self) -> list[Entry]:
        """The records that go out together: one, or as many metrics, parameters and tags as a batch holds.

        Empty where nothing waits.
        """
        group: list[Entry] = []
        counts = {"metrics": 0, "params": 0, "tags": 0}
        for entry in self._queue:
            kind = entry.record["t"]
            if kind not in BATCHED | WITHOUT_DELIVERY:
                break
            if kind in BATCHED:
                counts[kind] += len(entry.record["v"])
                full = (
                    counts["metrics"] > METRICS_AT_ONCE
                    or max(counts["params"], counts["tags"]) > PARAMS_OR_TAGS_AT_ONCE
                )
                if group and full:
                    break
            group.append(entry)
        return group or list(islice(self._queue, 1))


class OfOneRun:
    """What every delivery of a run's journal tells of the run."""

    _backlog: Backlog

    @property
    def start(self) -> Record:
        """The record of the run's start; empty where the journal does not begin with one."""
        return self._backlog.start

    @property
    def finished(self) -> bool:
        """Whether the run has ended, as far as its journal was read."""
        return self._backlog.finished
