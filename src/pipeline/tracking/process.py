"""Telling whether the process that wrote a record is still there."""

import functools
import os
import socket
import sys
from pathlib import Path
from typing import NotRequired, TypedDict

import psutil

CLOCK_SECONDS = 2.0
"""By how much the start of a process may differ between two looks: that of the machine is known to the second."""


class Owner(TypedDict):
    """The process that writes a journal, told apart from a later one with the same process id.

    Records of earlier versions have no ``namespace``.
    """

    host: str
    pid: int
    started: str
    namespace: NotRequired[str]


def this_process() -> Owner:
    """The identity of the calling process."""
    pid = os.getpid()
    return {"host": _host(), "pid": pid, "started": _started(pid) or "", "namespace": _namespace()}


def is_alive(owner: Owner) -> bool:
    """Whether that very process still runs; one that cannot be seen from here counts as alive.

    Not seen are processes of another machine, and of another pid namespace (another container) of this one.
    """
    if not is_seen(owner):
        return True
    found = _started(owner["pid"])
    return found is not None and _is_same(found, owner["started"])


def is_seen(owner: Owner) -> bool:
    """Whether a process can be looked for from here: it is, or was, one of this machine and of this pid namespace."""
    return owner["host"] == _host() and not is_hidden(owner)


def is_hidden(owner: Owner) -> bool:
    """Whether a process is of this machine and cannot be seen all the same: it is in another pid namespace."""
    return owner["host"] == _host() and owner.get("namespace", _namespace()) != _namespace()


@functools.cache
def _host() -> str:
    # A restarted machine hands out the same process ids and start times again: the boot id tells them apart.
    boot = Path("/proc/sys/kernel/random/boot_id")
    return socket.gethostname() + (":" + boot.read_text().strip() if boot.exists() else "")


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process began, None where there is none: on Linux in clock ticks since the machine did."""
    try:
        process = psutil.Process(pid)
        # A process that has ended and that nobody waited for is not running.
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        if sys.platform != "linux":
            return str(process.create_time())
        # The time of day may be set anew while a process runs: both of these move with it, what lies between does not.
        since_boot = -psutil.boot_time() + process.create_time()
        return str(round(since_boot * os.sysconf("SC_CLK_TCK")))
    except psutil.Error:
        return None


def _is_same(a: str, b: str) -> bool:
    if a == b or sys.platform != "linux":
        return a == b
    try:
        return abs(int(a) - int(b)) <= CLOCK_SECONDS * os.sysconf("SC_CLK_TCK")
    except ValueError:
        return False
