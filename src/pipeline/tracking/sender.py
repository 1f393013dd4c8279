"""The background process that empties journals into MLflow: `python -m pipeline.tracking.sender DIR`.

Its owner tells it over stdin, a JSON value a line, who it is and which run directories to watch. It runs at
the lowest priority, and it ends once its owner is gone and everything is delivered or cannot be.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.masking import mask
from pipeline.process_life import answer, run_process
from pipeline.tracking import journal, registry
from pipeline.tracking.deliveries import Deliveries
from pipeline.tracking.delivery import Held, NotYet
from pipeline.tracking.process import Owner, is_alive
from pipeline.tracking.system_metrics import Sampler

TURN_SECONDS = 0.25
# With nothing to deliver, until it is told of a run or the pipe ends: a person's notebook may stay open for days.
IDLE_SECONDS = 5.0
DELIVERY_SECONDS = 1.0
SAMPLE_SECONDS = 5.0
FIRST_REQUEST_SECONDS = int(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"))
LAST_REQUEST_SECONDS = max(60, FIRST_REQUEST_SECONDS)
PATIENCE_WITHOUT_OWNER_SECONDS = 20.0


class Watched:
    """A run whose journal this sender empties; made only by `hold`, which has its lock."""

    def __init__(self, delivery: Deliveries, lock: contextlib.ExitStack, adopted: bool) -> None:
        self.delivery = delivery
        self.adopted = adopted
        self.due = 0.0
        self.held = False
        self._lock = lock
        self._system: journal.Writer | None = None

    def sample(self, values: dict[str, float]) -> None:
        """Note a sample of the system metrics, which go to MLflow, unless the run has ended or does not want them."""
        start = self.delivery.start
        if self.adopted or self.delivery.finished or not self.delivery.uri or not start.get("system_metrics"):
            return
        if self._system is None:
            self._system = journal.Writer(self.delivery.folder / journal.SYSTEM_JOURNAL)
        now = int(time.time() * 1000)
        step = round((now - start["time"]) / (SAMPLE_SECONDS * 1000))
        # On a full disk the run's own records come first.
        with contextlib.suppress(OSError):
            self._system.append({"t": "metrics", "time": now, "step": step, "v": values})

    def close(self) -> None:
        """Let another sender have the run."""
        if self._system is not None:
            self._system.close()
        self.delivery.close()
        self._lock.close()


def hold(directory: Path, uri: str, experiments_dir: Path, adopted: bool) -> Watched | None:
    """Take over the delivery of a run; None while another process has it."""
    stack = contextlib.ExitStack()
    folder = registry.tracking_folder(directory)
    if not stack.enter_context(journal.locked(folder / "sender.lock", wait=False)):
        stack.close()
        return None
    return Watched(Deliveries(directory, uri, experiments_dir), stack, adopted)


class Sender:
    """Delivers for one owner process, and what earlier processes left behind."""

    def __init__(self, experiments_dir: Path, commands: int) -> None:
        self.experiments_dir = experiments_dir
        self._commands = commands
        self._buffer = b""
        self._open = True
        self._owner: Owner | None = None
        self._wanted: dict[Path, str] = {}
        self._watched: dict[Path, Watched] = {}
        self._sampler: Sampler | None = None
        self._next_sample = 0.0
        self._alone_since: float | None = None
        self._orphans_seen = False

    def run(self) -> None:
        """Deliver until the owner is gone and nothing is left that can be delivered."""
        while not self._done():
            self._read_commands(TURN_SECONDS if self._watched or self._wanted else IDLE_SECONDS)
            self._check_owner()
            self._hold_wanted()
            self._sample()
            for watched in list(self._watched.values()):
                self._deliver(watched)
            self._drop_finished()
            self._adopt_orphans()

    def _read_commands(self, timeout: float) -> None:
        if not self._open:
            time.sleep(timeout)
            return
        if not select.select([self._commands], [], [], timeout)[0]:
            return
        chunk = os.read(self._commands, 65536)
        self._open = bool(chunk)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, message: dict[str, Any]) -> None:
        if "owner" in message:
            self._owner = message["owner"]
        elif "watch" in message:
            self._wanted[Path(message["watch"])] = message["uri"]
        for watched in self._watched.values():
            # Whatever it said, the owner wants a look now; only a failing tracker keeps its pause.
            watched.due = 0.0

    def _check_owner(self) -> None:
        if self._alone_since is not None:
            return
        if self._owner is None:
            if not self._open:
                self._alone_since = time.monotonic()
            return
        if not is_alive(self._owner):
            self._alone_since = time.monotonic()
            for entry in registry.pending_runs(self.experiments_dir):
                if entry.owner == self._owner:
                    registry.mark_if_vanished(self.experiments_dir, entry)
            for watched in self._watched.values():
                watched.due = 0.0

    def _hold_wanted(self) -> None:
        for directory, uri in list(self._wanted.items()):
            watched = self._watched.get(directory)
            if watched is None:
                # Until the sender of an interrupted attempt lets go, a resumed run waits here.
                watched = hold(directory, uri, self.experiments_dir, adopted=False)
            if watched is not None:
                watched.adopted = watched.held = False
                watched.delivery.try_again()
                self._watched[directory] = watched
                del self._wanted[directory]

    def _sample(self) -> None:
        now = time.monotonic()
        if (
            self._owner is None
            or self._alone_since is not None
            or now < self._next_sample
            or not self._watched
        ):
            return
        if self._sampler is None:
            # Processor use is an average over the time between two samples: the first comes a little later.
            self._sampler = Sampler(self._owner["pid"])
            self._next_sample = now + 1.0
            return
        self._next_sample = now + SAMPLE_SECONDS
        values = self._sampler.sample()
        for watched in self._watched.values():
            watched.sample(values)

    def _deliver(self, watched: Watched) -> None:
        if watched.held or time.monotonic() < watched.due or watched.delivery.drained:
            return
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(
            min(LAST_REQUEST_SECONDS, FIRST_REQUEST_SECONDS * 2 ** min(watched.delivery.first_failures, 8))
        )
        try:
            watched.delivery.deliver()
        except Exception as error:
            watched.held = isinstance(error, Held)
            if not isinstance(error, NotYet):
                self._report(watched, error)
        watched.due = min(time.monotonic() + DELIVERY_SECONDS, watched.delivery.due)

    def _report(self, watched: Watched, error: Exception) -> None:
        text = mask(f"{type(error).__name__}: {error}")
        print(f"{time.strftime('%F %T')} {watched.delivery.directory}: {text}", file=sys.stderr, flush=True)

    def _drop_finished(self) -> None:
        for directory, watched in list(self._watched.items()):
            ended = watched.delivery.finished or watched.adopted or self._alone_since is not None
            if ended and (watched.delivery.drained or (watched.held and self._alone_since is not None)):
                watched.close()
                del self._watched[directory]

    def _adopt_orphans(self) -> None:
        """Once this owner's own runs are being delivered, deliver what earlier processes could not."""
        if self._orphans_seen or not self._watched:
            return
        ours = next(iter(self._watched.values()))
        if not all(watched.delivery.drained for watched in self._watched.values()) or ours.delivery.failures:
            return
        self._orphans_seen = True
        registry.recover(self.experiments_dir)
        for entry in registry.pending_runs(self.experiments_dir):
            left = entry.finished or not registry.is_running(entry.directory, entry.owner)
            if not left or entry.directory in self._watched or entry.uri not in ("", mask(ours.delivery.uri)):
                continue
            uri = ours.delivery.uri if entry.uri else ""
            if watched := hold(entry.directory, uri, self.experiments_dir, adopted=True):
                self._watched[entry.directory] = watched

    def _done(self) -> bool:
        if self._open:
            return False
        if self._alone_since is None:
            # The owner closed the pipe and still runs: only a run without an end could make a difference yet.
            return not self._wanted and not self._watched
        if not self._watched and not self._wanted:
            return True
        stuck = all(watched.delivery.failures or watched.held for watched in self._watched.values())
        return stuck and time.monotonic() - self._alone_since > PATIENCE_WITHOUT_OWNER_SECONDS


class _Redacting:
    """A stream that writes no passwords."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # A log that cannot be written must not end the delivery.
        with contextlib.suppress(OSError):
            self._stream.write(mask(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prepare() -> None:
    os.nice(int(os.environ.get("PIPELINE_SENDER_NICE", "19")))
    # The end of the owner is what ends a sender; a signal to the whole group must not cost records.
    answer(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Repeating is done here, where the order is kept.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    sys.stdout = _Redacting(sys.stdout)
    sys.stderr = _Redacting(sys.stderr)


def main() -> int:
    """Run a sender for the process at the other end of stdin.

    Returns:
        The exit code.
    """
    _prepare()
    # The long import happens while the owner does its own.
    import mlflow  # noqa: F401

    Sender(Path(sys.argv[1]), sys.stdin.fileno()).run()
    return 0


if __name__ == "__main__":
    run_process(main)
