"""The owner's end of the background sender: starting it, telling it what to watch, waiting for it."""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.process_life import finding_this_package, own_process
from pipeline.tracking import journal, registry
from pipeline.tracking.process import this_process

EXIT_WAIT_SECONDS = 60.0
UNREACHABLE_SECONDS = 2.0
MOST_STARTS = 4
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class SenderLink:
    """One sender process for all runs that this process records in one experiments directory."""

    ends: ClassVar[float | None] = None
    """Time (seconds since 1970) until which the end of this process may wait, see :func:`end_by`."""

    def __init__(self, experiments_dir: Path) -> None:
        self.experiments_dir = experiments_dir
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._watched: dict[Path, str] = {}
        atexit.register(self._at_exit)

    def start(self) -> None:
        """Start the sender unless it runs; returns at once."""
        if self._process is not None and self._process.poll() is None:
            return
        self._starts += 1
        log = self.experiments_dir / registry.FOLDER / "sender.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                own_process("pipeline.tracking.sender", str(self.experiments_dir)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=finding_this_package({**os.environ, **_QUIET}),
                # Ctrl-C goes to the whole foreground group; a session of its own would undo the niceness,
                # which Linux weighs within a session only.
                process_group=0,
            )
        self._tell({"owner": this_process()})
        for directory, uri in self._watched.items():
            self._tell({"watch": str(directory), "uri": uri})

    def watch(self, directory: Path, uri: str) -> None:
        """Have the journal of a run delivered. The address, which may hold a password, goes by the pipe."""
        self._watched[directory] = uri
        # What was bounded is not the last thing that this process does.
        SenderLink.ends = None
        if self._process is None or self._process.poll() is not None:
            self.start()
        else:
            self._tell({"watch": str(directory), "uri": uri})

    def flush(self) -> None:
        """Have the sender look at once rather than at its next turn."""
        self._tell({"flush": True})

    def wait(self, directories: Sequence[Path], timeout: float) -> bool:
        """Wait until the journals of some run directories are delivered.

        Args:
            directories: Run directories.
            timeout: Longest time to wait, in seconds.

        Returns:
            Whether all of it arrived; false early when the tracking server has not answered for two seconds.
        """
        deadline = time.monotonic() + timeout
        waiting = list(directories)
        self.flush()
        while True:
            waiting = [directory for directory in waiting if not is_delivered(directory)]
            if not waiting:
                return True
            if time.monotonic() >= deadline or any(_unreachable(directory) for directory in waiting):
                return False
            if self._process is None or self._process.poll() is not None:
                # Someone killed the sender: another one goes on where it was.
                if self._starts >= MOST_STARTS:
                    return False
                self.start()
            time.sleep(0.02)

    def close(self, timeout: float = EXIT_WAIT_SECONDS) -> bool:
        """Wait for everything of this process to be delivered, then let the sender go.

        Returns:
            Whether everything arrived; if not, a line on stderr says how to deliver the rest.
        """
        if self._process is None or os.getpid() != self._owner:
            return True
        delivered = False
        if SenderLink.ends is not None:
            timeout = min(timeout, max(0.0, SenderLink.ends - time.time()))
        with contextlib.suppress(KeyboardInterrupt):
            delivered = self.wait(list(self._watched), timeout)
        self._report()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None
        self._watched = {}
        return delivered

    def _report(self) -> None:
        late = [directory for directory in self._watched if not is_delivered(directory)]
        if late:
            errors = (cursor.error for directory in late for cursor in _cursors(directory).values())
            error = next(filter(None, errors), None)
            print(
                "The tracking server has not taken everything yet"
                + (f" ({error.splitlines()[0][:200]})" if error else "")
                + f"; the records are kept in {self.experiments_dir}, and `python -m pipeline task=sync` "
                "delivers them.",
                file=sys.stderr,
            )
        for directory in self._watched:
            refused = registry.tracking_folder(directory) / "rejected.jsonl"
            if refused.exists():
                print(
                    f"The tracking server refused some records; {refused} says which and why.",
                    file=sys.stderr,
                )

    def _at_exit(self) -> None:
        self.close()

    def _tell(self, message: object) -> None:
        if self._process is None or self._process.stdin is None:
            return
        # A sender that is gone is noticed by `wait` and started again by the next `watch`.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()


def link(experiments_dir: Path) -> SenderLink:
    """The calling process's sender for an experiments directory."""
    return _link(os.getpid(), experiments_dir.absolute())


@functools.cache
def _link(_process: int, experiments_dir: Path) -> SenderLink:
    return SenderLink(experiments_dir)


def end_by(moment: float | None) -> None:
    """Have the end of this process wait for deliveries no longer than until a moment, unless another run begins.

    Args:
        moment: Time in seconds since 1970; None for a minute, as ever.
    """
    SenderLink.ends = moment


def start_sender(experiments_dir: Path) -> None:
    """Start the background sender early, so that it has done its imports when the first record comes."""
    link(experiments_dir).start()


def drain(experiments_dir: Path, timeout: float = EXIT_WAIT_SECONDS) -> bool:
    """Wait for all runs of this process to be delivered, as the end of the process does by itself.

    Args:
        experiments_dir: Directory in which the runs were recorded.
        timeout: Longest time to wait, in seconds; a process that has to end soon gives few.

    Returns:
        Whether everything arrived; if not, a line on stderr has said how to deliver the rest.
    """
    return link(experiments_dir).close(timeout)


def is_delivered(directory: Path) -> bool:
    """Whether everything in a run directory's journal has reached every tracker that it goes to."""
    path = registry.tracking_folder(directory) / journal.JOURNAL
    return not any(journal.pending_bytes(path, cursor.offset) for cursor in _cursors(directory).values())


def _cursors(directory: Path) -> dict[str, journal.Cursor]:
    return journal.cursors(registry.tracking_folder(directory))


def _unreachable(directory: Path) -> bool:
    since = [cursor.failing_since for cursor in _cursors(directory).values()]
    return any(start is not None and time.time() - start >= UNREACHABLE_SECONDS for start in since)
