"""Telling whether the process that wrote a record is still there."""

import functools
import os
import socket
import sys
from pathlib import Path
from typing import TypedDict


class Owner(TypedDict):
    """The process that writes a journal, told apart from a later one with the same process id."""

    host: str
    pid: int
    started: str


def this_process() -> Owner:
    """The identity of the calling process."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid()) or ""}


def is_alive(owner: Owner) -> bool:
    """Whether that very process still runs; one on another machine, not seen from here, counts as alive."""
    if owner["host"] != _host():
        return True
    return _started(owner["pid"]) == owner["started"]


@functools.cache
def _host() -> str:
    # A restarted machine hands out the same process ids and start times again: the boot id tells them apart.
    boot = Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname() + (":" + boot.read_text().strip() if boot.exists() else "")


def _started(pid: int) -> str | None:
    return _started_on_linux(pid) if sys.platform == "linux" else _started_elsewhere(pid)


def _started_on_linux(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A process that has ended and that nobody waited for is not running.
    return None if fields[0] in ("Z", "X") else fields[19]


def _started_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
