"""How the processes of the pipeline begin and end."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.errors import Interrupted
from pipeline.scipy_inside import without_notes

_COLLECT_EVERY = 200_000

SHARE_OF_CORES = "PIPELINE_SHARE_OF_CORES"
"""Set for workers whose ``OMP_NUM_THREADS`` is their share of the cores, not a number that somebody chose."""

_whole: list[bool] = []

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SPINS = "1000"

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit code of a process that a signal ended."""

_MAIN_PROCESS = "PIPELINE_MAIN_PROCESS"
_MAIN_SECONDS = 120.0
_PARENT_SECONDS = 1.0
# Diverged, and interrupted.
_AGREED = (3, *EXIT_CODES.values())


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The answer to a signal that ends at once what is going on.

    Raises:
        Interrupted: Always, with the signal's exit code.
    """
    raise Interrupted(EXIT_CODES[signal.Signals(number)])


def answer(handler: Any, *numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """Have ``handler`` answer signals from now on.

    Args:
        handler: Handler, of the kinds that :func:`signal.signal` takes.
        *numbers: Numbers of the signals.

    Returns:
        The handlers that were there before, for :func:`restore`. Outside of the main thread, which alone may set any,
        everything stays as it is and there is nothing to restore.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}


def restore(handlers: Mapping[signal.Signals, Any]) -> None:
    """Undo what :func:`answer` did."""
    for number, handler in handlers.items():
        # None is one that was not set from Python, which cannot put it back.
        if handler is not None:
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """For as long as the block lasts, SIGTERM ends it as Ctrl-C does, whatever it is at: by :class:`Interrupted`."""
    before = answer(interrupt, signal.SIGTERM)
    try:
        yield
    finally:
        restore(before)


def own_process(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as a process.

    Without the working directory in front of the search path: a torch.py in it would hide what is installed.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def finding_this_package(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a process of this package's own, which is found there as it was found here."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path}


def note_main_process() -> None:
    """Note for the processes that a data-parallel training starts from this one whose children they are."""
    if "LOCAL_RANK" not in os.environ:
        os.environ[_MAIN_PROCESS] = str(os.getpid())


def _let_main_process_end_first(code: int) -> None:
    # Lightning kills the process that started the others when one of those ends with an error. Where all of them end
    # by agreement, it is to finish what it records.
    if code not in _AGREED or os.environ.get("LOCAL_RANK", "0") == "0":
        return
    deadline = time.monotonic() + _MAIN_SECONDS
    while os.environ.get(_MAIN_PROCESS) == str(os.getppid()) and time.monotonic() < deadline:
        time.sleep(0.05)


def watch_parent(parent: int, on_gone: Callable[[], None]) -> None:
    """Have a thread call a function, once, when the process that began this one is gone.

    Args:
        parent: Number of that process, from itself: an orphan that asks for its parent is told who adopted it. Who does
            is older than the orphan, and so has not been given the parent's number anew.
        on_gone: Function to call.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        on_gone()

    threading.Thread(target=look, name="parent", daemon=True).start()


def process_start() -> float:
    """When this process began, in seconds since 1970."""
    import psutil

    return float(psutil.Process().create_time())


def command_start() -> float | None:
    """When the command began that this whole process runs, in seconds since 1970; None inside of another program."""
    return process_start() if _whole else None


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def let_threads_sleep() -> None:
    """Have threads that wait soon sleep, in what is imported from now on, unless the environment decides.

    OpenMP's otherwise compute until the others come, which beside other busy processes takes away the very time that
    those need: steps of two threads took 10 to 60 times as long. To sleep at once costs the small operations of an
    LSTM half of their speed, even on a machine of its own.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        # GNU's OpenMP alone knows it: some microseconds.
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def run_process(main: Callable[[], int]) -> NoReturn:
    """Run a process's main function, and end the process with the exit code that it returns.

    Threads are waited for, the exit handlers that were registered meanwhile run, what was printed is flushed. Only the
    interpreter's own end is left out, which takes torch and Lightning apart object by object: 1.2 s.
    """
    # Importing them makes hundreds of thousands of objects that stay. Looking through those for garbage every 700
    # objects, as Python 3.11 does, takes a tenth of the imports' time.
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    without_notes()
    let_threads_sleep()
    _whole.append(True)
    codes: list[int] = []
    # The last registered runs first: this one after all that are still to come.
    atexit.register(_end, codes)
    codes.append(main())
    _let_main_process_end_first(codes[0])
    sys.exit(codes[0])


def _end(codes: list[int]) -> None:
    if not codes:
        # An exception that nobody expected: the interpreter shows it.
        return
    logging.shutdown()
    code = codes[0]
    # A process that was started without them has None there.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            # Whoever read the output (head, less) has seen enough.
            pass
        except (OSError, ValueError) as error:
            code = code or 1
            with suppress(OSError):
                os.write(2, f"Error: the output could not be written: {error}\n".encode())
    os._exit(code)
