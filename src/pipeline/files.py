"""Files that are written whole or not at all: under another name first, then renamed.

Whoever reads sees what was there before or what is there now, never half of it; a full disk leaves what was there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written(path: Path, durable: bool = False) -> Iterator[Path]:
    """A draft beside ``path`` that becomes ``path`` at the end of the block, and is removed if anything is raised.

    Args:
        path: The file to write, or a directory that is not there yet (or empty).
        durable: Whether it also has to be whole after a power cut, for which the disk is waited for (files alone).

    Yields:
        A path that nothing is at (it ends in ``.part``); the block makes a file or a directory there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield draft
        if durable:
            sync_and_rename(draft, path)
        else:
            draft.replace(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text in UTF-8, whole or not at all."""
    with written(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, values: Any) -> Path:
    """Write values as JSON, whole or not at all; NaN and the infinities, which JSON does not have, become null."""
    return write_text(path, json.dumps(as_json(values), indent=2, allow_nan=False) + "\n")


def as_json(values: Any) -> Any:
    """The values as JSON has them: keys are strings, NumPy's scalars numbers, what is not finite null."""
    if isinstance(values, dict):
        return {str(key): as_json(inner) for key, inner in values.items()}
    if isinstance(values, list | tuple):
        return [as_json(inner) for inner in values]
    if not isinstance(values, str | int | float | None) and hasattr(values, "item"):
        values = values.item()
    return None if isinstance(values, float) and not math.isfinite(values) else values


def sync_and_rename(source: Path, target: Path) -> None:
    """Rename a finished file so that after a power cut it is whole at its new place, or was never there."""
    sync(source)
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have the disk itself hold a file's content, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
