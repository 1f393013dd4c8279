"""How the processes of one training on several nodes find each other: early, and within a minute."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pipeline.errors import UserError
from pipeline.runs.together import WAIT_SECONDS, Place

_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 10.0
# The process of rank 0 is the server for as long as it lives, and torch's process group finds it again.
_held: list[Any] = []


def meet(here: Place, seconds: float = WAIT_SECONDS) -> None:
    """Connect to the process of rank 0 at MASTER_ADDR, which torch would try for half an hour.

    To be called when all processes have come so far (:func:`pipeline.runs.together.tell`).

    Args:
        here: This process.
        seconds: Longest time to wait.

    Raises:
        UserError: The address means nothing here, nobody answers there, or some process does not come.
    """
    host, port = _address()
    served_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = _reach if here.rank > 0 or served_by_torchrun else _resolve
    _until_it_works(attempt, host, port, here, seconds)
    if served_by_torchrun:
        return
    from torch.distributed.rendezvous import rendezvous

    # It may take twice as long: once to connect, once to wait for the others.
    limit = timedelta(seconds=max(seconds / 2, 1.0))
    try:
        store, _, _ = next(rendezvous("env://", here.rank, here.size, timeout=limit))
    except (RuntimeError, ValueError) as error:
        raise UserError(_missing(host, port, here, seconds, str(error).splitlines()[0])) from None
    _held.append(store)


def _address() -> tuple[str, int]:
    """Where the process of rank 0 is, as torchrun or SLURM says, in the environment too."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        from pipeline.training.trainer import environment_plugins

        [slurm] = environment_plugins()
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def _resolve(host: str, port: int, left: float) -> None:
    socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _reach(host: str, port: int, left: float) -> None:
    socket.create_connection((host, port), timeout=max(min(left, _CONNECT_SECONDS), 0.1)).close()


def _until_it_works(
    attempt: Callable[[str, int, float], None], host: str, port: int, here: Place, seconds: float
) -> None:
    """Make an attempt, which is told the address and how many seconds are left, until it raises no `OSError`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt(host, port, deadline - time.monotonic())
        except OSError as error:
            if time.monotonic() + _PAUSE_SECONDS > deadline:
                raise UserError(_missing(host, port, here, seconds, error.strerror or str(error))) from None
        time.sleep(_PAUSE_SECONDS)


def _missing(host: str, port: int, here: Place, seconds: float, reason: str) -> str:
    return (
        f"rank {here.rank} of {here.size} did not find the others at MASTER_ADDR={host} MASTER_PORT={port} within "
        f"{seconds:g} s ({reason}). Expected a name or address of the first node that all nodes reach, and a port that "
        "is free there: set both (SLURM and torchrun do so by themselves where the nodes know each other by name)"
    )
