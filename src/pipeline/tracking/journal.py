"""The local journal of one run: JSON lines that are only added to, and how far they were delivered."""

import contextlib
import errno
import fcntl
import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import write_text

Record = dict[str, Any]

JOURNAL = "journal.jsonl"
SYSTEM_JOURNAL = "system.jsonl"
CURSOR = "cursor.json"
# json.dumps makes an encoder for every call.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode_value(value: float) -> float | str:
    """A metric value as JSON can hold it: NaN and the infinities have no number there and become words."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def decode_value(value: float | str) -> float:
    """The metric value that `encode_value` was given."""
    return _NOT_FINITE[value] if isinstance(value, str) else float(value)


class Writer:
    """Appends records to a journal, one system call each; a torn last line is cut off when it is opened.

    While it is open, :func:`is_open` says so to every process of this machine.

    Args:
        path: File of the journal; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        # Not every file system has locks.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)
        _repair(self._file)

    def append(self, record: Record) -> None:
        """Write one record. On a full disk nothing of it stays behind and the OSError names the journal."""
        line = _encode(record).encode() + b"\n"
        with self._lock:
            written = 0
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                if written:
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                reason = f"cannot record in the run's journal: {error.strerror}"
                raise OSError(error.errno, reason, str(self.path)) from error

    def sync(self) -> None:
        """Have the disk itself hold what was written."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; further appends fail."""
        with self._lock:
            os.close(self._file)
            # The number may name another file next.
            self._file = -1


def is_open(path: Path) -> bool:
    """Whether a :class:`Writer` of any process of this machine has a journal open, or that cannot be told."""
    try:
        # For writing: NFS gives this lock for no other file.
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Held by a writer, or a file system without locks, or a journal of somebody else.
        return True
    return False


def _repair(file: int) -> None:
    """Cut a last line that was not written to its end."""
    end = os.fstat(file).st_size
    tail = end
    while tail > 0:
        start = max(0, tail - 65536)
        newline = os.pread(file, tail - start, start).rfind(b"\n")
        if newline >= 0:
            tail = start + newline + 1
            break
        tail = start
    if tail != end:
        os.ftruncate(file, tail)


def read(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """The whole records after `offset` bytes, each with the offset that follows it.

    A last line without its end is left out: it is being written, or its writer was killed. A line that is not
    JSON (a damaged disk) becomes the record `{"t": "damaged"}`.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                record = {"t": "damaged"}
            yield record, offset


def pending_bytes(path: Path, offset: int) -> bool:
    """Whether the journal has grown beyond an offset."""
    try:
        return path.stat().st_size > offset
    except FileNotFoundError:
        return False


@dataclass
class Cursor:
    """How far a journal was delivered, and to where.

    Args:
        uri: The store that it was delivered to, without passwords.
        run_id: MLflow's id of the run there, once it exists.
        offset: Bytes of the journal that are delivered for certain.
        sending: Bytes up to which records may have arrived (the sender could have died before it learnt so).
        system_offset: Bytes of the system metrics' journal that are delivered.
        models: MLflow's ids of models, by the offset of the record that logged them.
        unsure: Whether creating the run failed in a way that may have created it nevertheless.
        failing_since: Time (seconds since 1970, by this machine's clock) since which no delivery succeeded; null while
            all is well.
        error: Last failure, in words.
    """

    uri: str = ""
    run_id: str | None = None
    offset: int = 0
    sending: int = 0
    system_offset: int = 0
    models: dict[str, str] = field(default_factory=dict)
    unsure: bool = False
    failing_since: float | None = None
    error: str | None = None

    @classmethod
    def load(cls, folder: Path, name: str = CURSOR) -> "Cursor":
        """The cursor kept in a run's tracking folder; a fresh one where there is none or it is damaged."""
        try:
            return cls(**json.loads((folder / name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def save(self, folder: Path, name: str = CURSOR) -> None:
        """Replace the file at once: a reader sees the old cursor or the new one, never half of one."""
        write_text(folder / name, json.dumps(asdict(self)))


def other_cursor(tracker: str) -> str:
    """The file that says how far a journal was delivered to a tracker beside MLflow; it is there from the start on."""
    return f"cursor-{tracker}.json"


def mlflow_address(folder: Path) -> str:
    """The MLflow store that a run, resumed or not, is told to, without passwords; empty where it is told to none."""
    first = next(read(folder / JOURNAL), None)
    return Cursor.load(folder).uri or ("" if first is None else str(first[0].get("uri", "")))


def cursors(folder: Path) -> dict[str, Cursor]:
    """How far a journal was delivered to each tracker that it goes to, by the tracker's name."""
    found = {
        path.stem.removeprefix("cursor-"): Cursor.load(folder, path.name)
        for path in sorted(folder.glob(other_cursor("*")))
    }
    first = next(read(folder / JOURNAL), None)
    # A run that MLflow is not told of has no address there.
    if (folder / CURSOR).exists() or first is None or first[0].get("uri", "?"):
        found["mlflow"] = Cursor.load(folder)
    return found


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; yields whether it was got (always, when waiting). It is freed if we are killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
