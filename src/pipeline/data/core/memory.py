"""How much memory there is, asked before any of it is taken."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError

_LIMIT = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that this process can still take: of the machine, or of the container that it runs in."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_LIMIT / "memory.max").read_text())
        used = int((_LIMIT / "memory.current").read_text())
        # The page cache counts as used, and is given back when it is needed.
        lines = (line.split() for line in (_LIMIT / "memory.stat").read_text().splitlines())
        reclaimable = {name: int(value) for name, value in lines}.get("inactive_file", 0)
    except (OSError, ValueError):
        # No such limit ("max" is no number), or another system.
        return free
    return min(free, limit - used + reclaimable)


def check_memory(needed: int, what: str, advice: str) -> None:
    """Refuse before allocating what the machine does not have.

    Args:
        needed: Number of bytes that are needed.
        what: What takes them, for the message.
        advice: What to do instead.

    Raises:
        UserError: Less memory than that is free.
    """
    if needed > (free := free_memory()):
        raise UserError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; {advice}"
        )


def give_back() -> None:
    """Give what reading a large file took, and is free again, back to the machine: allocators keep it for later."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    # Of glibc; other C libraries have no such function.
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
