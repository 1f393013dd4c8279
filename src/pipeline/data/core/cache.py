"""Prepared arrays kept on disk, so that a second start reads no source file.

An entry is a directory of ``.npy`` files (read without pickle) and a manifest with each file's size and checksum.
It is built under another name and renamed when it is whole; a lock lets one process build it while others wait.
"""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import written

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


def cached(
    data_dir: Path, name: str, build: Callable[[], tuple[Arrays, Any]]
) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays and the JSON value that ``build`` gives, from disk if they were built before.

    Args:
        data_dir: The user's data directory; entries live in its ``cache/``.
        name: Name of the entry; it must change with everything that ``build`` depends on (content digest, settings).
        build: Function that makes the arrays and a JSON value from the sources.
    """
    entry = data_dir / "cache" / name
    if (found := _read(entry)) is not None:
        return found
    from filelock import FileLock

    lock = FileLock(str(entry) + ".lock")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        log.warning(
            "%s cannot be written to (%s): what is prepared is not kept",
            entry.parent,
            error.strerror or error,
        )
        return _arrays(*build())
    try:
        if (found := _read(entry)) is not None:
            return found
        arrays, value = build()
        try:
            _write(entry, arrays, value)
        except OSError as error:
            log.warning("%s cannot be kept in %s: %s", name, entry.parent, error.strerror or error)
        return _arrays(arrays, value)
    finally:
        lock.release()


def _arrays(arrays: Arrays, value: Any) -> tuple[dict[str, np.ndarray], Any]:
    return {key: np.asarray(array) for key, array in arrays.items()}, value


def _read(entry: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    manifest = entry / "manifest.json"
    if not manifest.exists():
        return None
    try:
        description = json.loads(manifest.read_text(encoding="utf-8"))
        arrays = {}
        for key, expected in description["arrays"].items():
            arrays[key] = np.load(entry / f"{key}.npy", allow_pickle=False)
            if zlib.crc32(arrays[key].data) != expected:
                raise ValueError(f"{key}.npy does not match its checksum")
        return arrays, description["value"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("the cache entry %s is damaged (%s): building it again", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _write(entry: Path, arrays: Arrays, value: Any) -> None:
    with written(entry) as draft:
        draft.mkdir()
        checksums = {}
        for key, array in arrays.items():
            array = np.ascontiguousarray(array)
            np.save(draft / f"{key}.npy", array, allow_pickle=False)
            checksums[key] = zlib.crc32(array.data)
        text = json.dumps({"arrays": checksums, "value": value})
        (draft / "manifest.json").write_text(text, encoding="utf-8")
