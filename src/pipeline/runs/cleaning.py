"""What old runs, checkpoints and caches take on disk, and which of it can go without anything being lost."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.runs.listing import Row
from pipeline.runs.state import FILE, read
from pipeline.tracking import registry

Kind = Literal["debug", "caches", "checkpoints", "runs"]

_GONE = ".deleted"
"""End of the name, after a dot before it, of what is being deleted."""


@dataclass(frozen=True)
class Item:
    """Something that takes room.

    Args:
        kind: What it is.
        path: Directory that goes as a whole.
        size: Bytes that it takes.
        age: Time since anything in it was written, in seconds.
        kept: Why it stays; empty where it can go.
    """

    kind: Kind
    path: Path
    size: int
    age: float
    kept: str = ""


def protected(rows: Collection[Row], registered: Collection[str], keep: int) -> dict[str, str]:
    """The ids of the runs that are not to be touched, with the reason: the best of each experiment, registered ones."""
    found = dict.fromkeys(registered, "its model is registered")
    ranked: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            ranked[row.experiment, row.objective].append(row)
    for own in ranked.values():
        own.sort(key=lambda row: row.value or 0.0, reverse=own[0].mode == "max")
        for row in own[:keep]:
            found.setdefault(row.run_id, f"among the {keep} best of {row.experiment}")
    return found


def items(
    experiments_dir: Path,
    data_dir: Path,
    kinds: Collection[str],
    older_than: float,
    spared: dict[str, str],
    known: dict[str, str],
    ours: Path | None = None,
) -> list[Item]:
    """Everything of the kinds that are asked for, the largest first.

    Args:
        experiments_dir: Directory of the runs.
        data_dir: Directory of the data sets, whose ``cache/`` holds prepared ones.
        kinds: Kinds to look at.
        older_than: Least age of what can go, in seconds.
        spared: Reasons by the ids of the runs that are not to be touched.
        known: The tracking store's ids of runs by their client-side keys.
        ours: Directory of this command itself.
    """
    found: list[Item] = []

    def add(kind: Kind, path: Path, kept: str = "") -> None:
        size, newest = _taken(path)
        age = time.time() - newest
        young = f"written to less than {older_than / 86400:g} days ago" if age < older_than else ""
        found.append(Item(kind, path, size, age, kept or young))

    for kind, path in _half_deleted(experiments_dir, data_dir):
        if kind in kinds:
            size, newest = _taken(path)
            found.append(Item(kind, path, size, time.time() - newest))
    if "debug" in kinds:
        for path in sorted((experiments_dir / "debug").glob("*/*")):
            if path.is_dir() and path != ours and not path.name.endswith(_GONE):
                add("debug", path, _unfinished(path))
    if "caches" in kinds:
        for path in sorted((data_dir / "cache").glob("*/")):
            if not path.name.endswith(_GONE):
                add("caches", path)
    pending = {entry.directory for entry in registry.pending_runs(experiments_dir)}
    for path in _units(experiments_dir):
        if path == ours:
            continue
        why = _unfinished(path) or _undelivered(path, pending) or _spared(path, spared, known)
        checkpoints = sorted(path.glob("**/checkpoints")) if "checkpoints" in kinds else []
        for folder in checkpoints:
            if "runs" not in kinds or why:
                add("checkpoints", folder, why)
        if "runs" in kinds:
            add("runs", path, why)
    return sorted(found, key=lambda item: -item.size)


def free(found: Collection[Item]) -> int:
    """Delete what can go; gives the bytes that are free now."""
    freed = 0
    # What is half deleted goes first: it may lie in something that goes too, or have the name that this gets.
    for item in sorted(found, key=lambda item: not item.path.name.endswith(_GONE)):
        # Another command may delete the same at this moment: what it took is no longer there.
        if not item.kept and item.path.exists():
            # Under another name at first: a deletion that is cut off leaves no half of a run.
            gone = item.path
            if not gone.name.endswith(_GONE):
                gone = item.path.with_name(f".{item.path.name}{_GONE}")
                _remove(gone)
                try:
                    item.path.rename(gone)
                except FileNotFoundError:
                    continue
            _remove(gone)
            freed += item.size
    return freed


def _remove(directory: Path) -> None:
    """Delete a directory of which another command may delete parts at the same time."""
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue


def _half_deleted(experiments_dir: Path, data_dir: Path) -> Iterator[tuple[Kind, Path]]:
    """What an earlier command began to delete and did not end with; nothing keeps it."""
    places: dict[Kind, list[Iterator[Path]]] = {
        "debug": [experiments_dir.glob(f"debug/*/.*{_GONE}")],
        "caches": [data_dir.glob(f"cache/.*{_GONE}")],
        "runs": [experiments_dir.glob(f"{kind}/*/.*{_GONE}") for kind in ("runs", "sweeps")],
        "checkpoints": [
            experiments_dir.glob(f"{kind}/*/*/**/.checkpoints{_GONE}") for kind in ("runs", "sweeps")
        ],
    }
    for kind, searches in places.items():
        for search in searches:
            for path in sorted(search):
                # What lies in something half deleted goes with it.
                if not any(parent.name.endswith(_GONE) for parent in path.parents):
                    yield kind, path


def _units(experiments_dir: Path) -> Iterator[Path]:
    """The directories of commands that trained: a run with its fits, a sweep with its trials."""
    for path in sorted([*experiments_dir.glob("runs/*/*/"), *experiments_dir.glob("sweeps/*/*/")]):
        if not path.name.endswith(_GONE) and next(path.glob(f"**/{FILE}"), None) is not None:
            yield path


def _unfinished(path: Path) -> str:
    for state in path.glob(f"**/{FILE}"):
        if read(state.parent).get("status") != "finished":
            return "a run in it is running, or can be resumed"
    return ""


def _undelivered(path: Path, pending: Collection[Path]) -> str:
    waiting = any(directory == path or path in directory.parents for directory in pending)
    return "not all of it has reached the tracking server (task=sync)" if waiting else ""


def _spared(path: Path, spared: dict[str, str], known: dict[str, str]) -> str:
    journals = list(path.glob("**/tracking/journal.jsonl"))
    for journal in journals:
        key = registry.life(journal.parents[1]).key
        if key is None or key not in known:
            return "the tracking store does not know it"
        if known[key] in spared:
            return spared[known[key]]
    return "" if journals else "it is recorded nowhere else"


def _taken(path: Path) -> tuple[int, float]:
    """The bytes that a directory takes, and when anything in it was written last."""
    size, newest = 0, path.stat().st_mtime
    for place, _, files in os.walk(path):
        for name in files:
            status = (Path(place) / name).lstat()
            size += status.st_size
            newest = max(newest, status.st_mtime)
    return size, newest
