"""Work on images shared out to processes, which are ahead of whoever asks for its results."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pipeline import process_life
from pipeline.process_life import SHARE_OF_CORES, answer


def cores() -> int:
    """Processors that this process may use: of a sweep's worker, its share."""
    if SHARE_OF_CORES in os.environ and (share := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return max(1, int(share))
    return process_life.cores()


def cores_each() -> int:
    """Those of :func:`cores` for one of the processes that share a training on this machine."""
    together = "1"
    if "LOCAL_RANK" in os.environ:
        together = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or "1"
    return max(1, cores() // max(1, int(together)))


def results(make: Callable[[int], Any], count: int, workers: int, ahead: int) -> Iterator[Any]:
    """What ``make`` gives for 0 … count − 1, in order.

    Args:
        make: Function that makes one of them, in any process.
        count: Number of them.
        workers: Number of processes; with 0, or for a single one, this process makes them when they are asked for.
        ahead: How many each process is ahead.

    Raises:
        Exception: Whatever ``make`` raised.
    """
    if not workers or count < 2:
        yield from map(make, range(count))
        return
    loader: Any = torch.utils.data.DataLoader(
        _Made(make, count),
        batch_size=None,
        num_workers=min(workers, count),
        prefetch_factor=ahead,
        # Arrays go through a pipe: shared memory is small in many containers.
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        # Without one of its own it would draw from the training's random state.
        generator=torch.Generator(),
    )
    # Whoever is interrupted keeps this generator in what the error tells of; its processes end all the same.
    loading = [iter(loader)]
    atexit.register(loading.clear)
    try:
        for _ in range(count):
            found = next(loading[0])
            if isinstance(found, _Raised):
                raise found.error
            yield found
    finally:
        atexit.unregister(loading.clear)
        loading.clear()


@dataclass(frozen=True)
class _Raised:
    """What was raised; raised in a worker it would come as another kind, with a traceback in its message."""

    error: Exception


class _Made(torch.utils.data.Dataset[Any]):
    """What a function makes, as a loader wants it."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        try:
            return self.make(number)
        except Exception as error:
            return _Raised(error)


def _leave_signals_to_the_parent(_: int) -> None:
    # They come to all processes of a group. The parent saves its state, for which it needs its workers; those end with
    # it, or when they find that it is gone.
    there = [number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None))]
    answer(signal.SIG_IGN, *there)


def _as_it_is(value: Any) -> Any:
    return value
