"""Several fits at the same time, each in a process that begins where this one stands."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from threadpoolctl import threadpool_limits

from pipeline.errors import Diverged, UserError
from pipeline.models.saved import load, save
from pipeline.process_life import watch_parent

if TYPE_CHECKING:
    from pipeline.data.core.encoder import Encoder
    from pipeline.models.base import BaseModule

_END_SECONDS = 5.0
"""How long a process may take to end by itself when it is told to."""


class Lost(RuntimeError):
    """A fit came to no model: its process was killed, it ran out of memory, or there was no time for it."""


def at_once() -> int:
    """How many fits pay at the same time: as many as this process computes with threads.

    One where a process cannot be forked safely: elsewhere than on Linux, and where a GPU is in use.
    """
    if not sys.platform.startswith("linux") or torch.cuda.is_initialized():
        return 1
    return torch.get_num_threads()


def fitted_beside(
    jobs: Sequence[Callable[[], BaseModule]], encoder: Encoder, workers: int
) -> list[BaseModule]:
    """What each job fits, in order.

    With more than one worker each job runs in a forked process, with one thread, and sees everything that is in memory
    here. What it fits comes back through a directory, as a saved model does.

    Args:
        jobs: Each fits a model and gives it back.
        encoder: The data's encoder, which is saved with a model.
        workers: Number of processes at the same time.

    Raises:
        Diverged, UserError: By a job; the others are ended.
        Lost: By a job, or a process ended without a model.
    """
    if workers < 2 or len(jobs) < 2:
        return [job() for job in jobs]
    context: Any = multiprocessing.get_context("fork")
    waiting, running = list(enumerate(jobs)), dict[Any, tuple[Any, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(jobs))]
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    number, job = waiting.pop(0)
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(
                        target=_fit, args=(job, encoder, places[number], theirs, os.getpid()), daemon=True
                    )
                    with warnings.catch_warnings():
                        # Of threads, which are not carried over: none holds anything that a fit needs.
                        warnings.simplefilter("ignore", DeprecationWarning)
                        process.start()
                    theirs.close()
                    running[process.sentinel] = (process, ours)
                for sentinel in wait(list(running)):
                    process, ours = running.pop(sentinel)
                    process.join()
                    _look(process, ours)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.join(_END_SECONDS)
                process.kill()
                process.join()
        return [load(place).module for place in places]


def _fit(job: Callable[[], BaseModule], encoder: Encoder, place: Path, said: Any, parent: int) -> None:
    torch.set_num_threads(1)
    # Of OpenMP's threads none is carried over, and libgomp waits for them for ever.
    threadpool_limits(1)
    watch_parent(parent, lambda: os._exit(1))
    try:
        save(job(), encoder, place)
    except (Diverged, UserError, Lost) as error:
        kind = next(kind for kind in (Diverged, UserError, Lost) if isinstance(error, kind))
        said.send((kind, str(error)))


def _look(process: Any, ours: Any) -> None:
    try:
        kind, words = ours.recv()
    except EOFError:
        # It had nothing to say.
        pass
    else:
        raise kind(words)
    finally:
        ours.close()
    if process.exitcode:
        raise Lost(f"a process of several that fit at the same time ended with code {process.exitcode}")
