"""Which journals of an experiments directory still have something to deliver, and where every run lies."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.tracking import journal
from pipeline.tracking.moved import found_again
from pipeline.tracking.process import Owner, is_alive, is_hidden, is_seen

FOLDER = ".tracking"


def tracking_folder(directory: Path) -> Path:
    """Where a run directory keeps its journal."""
    return directory / "tracking"


@dataclass(frozen=True)
class Pending:
    """A run whose journal is not known to be delivered to its end."""

    key: str
    directory: Path
    owner: Owner
    uri: str
    finished: bool


def register(experiments_dir: Path, pending: Pending, *, name: str, experiment: str) -> None:
    """Note that a run is being recorded, so that it can be found, delivered or marked killed."""
    folder = experiments_dir / FOLDER / "pending"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, pending)
    line = {"key": pending.key, "directory": str(pending.directory), "name": name, "experiment": experiment}
    with (experiments_dir / FOLDER / "runs.jsonl").open("a") as index:
        index.write(json.dumps({**line, "time": int(time.time() * 1000)}) + "\n")


def mark_finished(experiments_dir: Path, pending: Pending) -> None:
    """Note that the journal has its last record."""
    finished = Pending(pending.key, pending.directory, pending.owner, pending.uri, True)
    _write(experiments_dir / FOLDER / "pending", finished)


def unregister(experiments_dir: Path, key: str) -> None:
    """Forget a run that was delivered to its end."""
    (experiments_dir / FOLDER / "pending" / f"{key}.json").unlink(missing_ok=True)


def pending_runs(experiments_dir: Path) -> list[Pending]:
    """All runs not known to be delivered, oldest first; in a directory that was moved, where they are now."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in (experiments_dir / FOLDER / "pending").iterdir():
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
                if path.suffix == ".json":
                    entry = _where_it_is(_read(path), experiments_dir)
                    found.append((path.stat().st_mtime, entry))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def known_runs(experiments_dir: Path) -> Iterator[dict[str, Any]]:
    """Every run ever started there (`key`, `directory`, `name`, `experiment`, `time` in ms), oldest first."""
    for record, _ in journal.read(experiments_dir / FOLDER / "runs.jsonl"):
        yield record


def find_directory(experiments_dir: Path, run: str) -> Path | None:
    """The directory of a run, by its key or MLflow's id, without asking the tracking server.

    Returns:
        None where no such run was started in this experiments directory or its directory is gone.
    """
    for record in reversed(list(known_runs(experiments_dir))):
        directory = found_again(Path(record["directory"]), experiments_dir)
        if directory.is_dir() and run in (
            record["key"],
            journal.Cursor.load(tracking_folder(directory)).run_id,
        ):
            return directory
    return None


def recover(experiments_dir: Path) -> list[Path]:
    """Mark the runs whose process vanished as KILLED in their journals; the next sender delivers that.

    Cheap: it looks only at runs that are not delivered yet.

    Returns:
        The directories of the runs that were marked.
    """
    return [
        entry.directory for entry in pending_runs(experiments_dir) if mark_if_vanished(experiments_dir, entry)
    ]


def is_running(directory: Path, owner: Owner) -> bool:
    """Whether the process that writes a run is still there.

    One that cannot be seen because it is in another container of this machine shows by its journal, which it has open.
    """
    path = tracking_folder(directory) / journal.JOURNAL
    return journal.is_open(path) if is_hidden(owner) and path.exists() else is_alive(owner)


def mark_if_vanished(experiments_dir: Path, entry: Pending) -> bool:
    """Record the end of a run whose process is no more; returns whether that was needed."""
    if entry.finished or is_running(entry.directory, entry.owner):
        return False
    folder = tracking_folder(entry.directory)
    if not (folder / journal.JOURNAL).exists():
        unregister(experiments_dir, entry.key)
        return False
    with journal.locked(folder / "writer.lock"):
        state = life(entry.directory)
        if state.key is None:
            unregister(experiments_dir, entry.key)
        elif state.finished:
            mark_finished(experiments_dir, entry)
        if state.finished or state.owner is None or is_running(entry.directory, state.owner):
            return False
        _mark_killed(experiments_dir, entry)
    return True


def take_over(directory: Path, experiments_dir: Path) -> bool:
    """Record the end of the runs in and below a directory whose process is known to be gone, wherever it was.

    Returns:
        False where one of them is being written all the same: its process runs on this machine, or has its journal
        open.
    """
    found = [
        (path, life(path.parent.parent)) for path in sorted(directory.rglob(f"tracking/{journal.JOURNAL}"))
    ]
    open_ones = [(path, state) for path, state in found if state.owner is not None and not state.finished]
    for path, state in open_ones:
        assert state.owner is not None
        if is_alive(state.owner) if is_seen(state.owner) else journal.is_open(path):
            return False
    for path, state in open_ones:
        assert state.key is not None and state.owner is not None
        run = path.parent.parent
        with journal.locked(path.parent / "writer.lock"):
            if not life(run).finished:
                _mark_killed(experiments_dir, Pending(state.key, run, state.owner, state.start["uri"], False))
    return True


def _mark_killed(experiments_dir: Path, entry: Pending) -> None:
    path = tracking_folder(entry.directory) / journal.JOURNAL
    end = int(path.stat().st_mtime * 1000)
    writer = journal.Writer(path)
    writer.append({"t": "tags", "v": {"killed.reason": "the process vanished without finishing its run"}})
    writer.append({"t": "finish", "time": end, "status": "KILLED", "error": None})
    writer.sync()
    writer.close()
    mark_finished(experiments_dir, entry)


@dataclass(frozen=True)
class Life:
    """What a journal says of its run.

    Args:
        key: Client-side key; None where there is no journal.
        owner: Process that wrote last.
        status: RUNNING, or how it finished.
        start: Record that it began with.
    """

    key: str | None
    owner: Owner | None
    status: str
    start: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the last thing said is that the run ended."""
        return self.status != "RUNNING"


def life(directory: Path) -> Life:
    """Read a run's journal for its state; works without a tracking server."""
    key, owner, status, start = None, None, "RUNNING", {}
    for record, _ in journal.read(tracking_folder(directory) / journal.JOURNAL):
        if record["t"] in ("start", "resume"):
            owner, status = record["owner"], "RUNNING"
            if record["t"] == "start":
                key, start = record["key"], record
        elif record["t"] == "finish":
            status = record["status"]
    return Life(key, owner, status, start)


def _where_it_is(entry: Pending, experiments_dir: Path) -> Pending:
    place = found_again(entry.directory, experiments_dir)
    if place == entry.directory or life(place).key != entry.key:
        return entry
    return replace(entry, directory=place)


def _write(folder: Path, pending: Pending) -> None:
    content = {
        "key": pending.key,
        "directory": str(pending.directory),
        "owner": pending.owner,
        "uri": pending.uri,
        "finished": pending.finished,
    }
    write_text(folder / f"{pending.key}.json", json.dumps(content))


def _read(path: Path) -> Pending:
    content = json.loads(path.read_text())
    return Pending(
        content["key"],
        Path(content["directory"]),
        content["owner"],
        content["uri"],
        bool(content["finished"]),
    )
