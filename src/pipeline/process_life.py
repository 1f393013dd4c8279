"""How the processes of the pipeline begin and end."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_COLLECT_EVERY = 50_000


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


def run_process(main: Callable[[], int]) -> NoReturn:
    """Run a process's main function, and end the process with the exit code that it returns.

    Threads are waited for, the exit handlers that were registered meanwhile run, what was printed is flushed. Only the
    interpreter's own end is left out, which takes torch and Lightning apart object by object: 1.2 s.
    """
    # Importing them makes hundreds of thousands of objects that stay. Looking through those for garbage every 700
    # objects, as Python 3.11 does, takes a tenth of the imports' time.
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    codes: list[int] = []
    # The last registered runs first: this one after all that are still to come.
    atexit.register(_end, codes)
    codes.append(main())
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
