"""Worker processes: started, watched, replaced when they die, and stopped together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Interrupted
from pipeline.process_life import finding_this_package, own_process
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.storage import SweepStorage
from pipeline.sweeps.worker import report_lost

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# A worker saves its trial's state before it goes; one that takes longer is killed.
_STOP_SECONDS = 30.0
# Deaths in a row, without a trial finished between them, after which a slot is not filled again.
_DEATHS_IN_A_ROW = 3


class WorkersFailed(RuntimeError):
    """No worker could be kept alive; the message names the log that says why."""


@dataclass
class _Slot:
    number: int
    process: subprocess.Popen[bytes]
    deaths: int = 0
    done_before: int = 0


class Supervisor:
    """Runs a plan's workers as processes of their own.

    Args:
        plan: The sweep.
        plan_file: File with the plan, for the workers.
        url: Address of the storage; given to them in the environment alone, since it may hold a password.
        storage: The same storage, opened.
        study_id: Id of the study in it.
        finished: Function that gives the number of finished trials.
        on_change: Function called a few times a second.
        on_lost: Function called after trials of dead workers were taken back.
    """

    def __init__(
        self,
        plan: Plan,
        plan_file: Path,
        url: str,
        storage: SweepStorage,
        study_id: int,
        finished: Callable[[], int],
        on_change: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._plan_file = plan_file
        self._url = url
        self._storage = storage
        self._study_id = study_id
        self._finished = finished
        self._on_change = on_change
        self._on_lost = on_lost
        self._slots: list[_Slot] = []

    def run(self) -> None:
        """Start the workers and wait until all have nothing left to do.

        Raises:
            KeyboardInterrupt, Interrupted: A signal came; all workers have stopped.
            WorkersFailed: The workers keep dying.
        """
        workers = min(self._plan.n_jobs, self._plan.n_trials)
        try:
            self._slots = [_Slot(number, self._start(number)) for number in range(workers)]
            while self._slots:
                self._look()
                self._on_change()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        output = self._log_file(number)
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as file:
            return subprocess.Popen(
                own_process("pipeline.sweeps.worker", str(self._plan_file)),
                env=worker_environment(number, self._plan.n_jobs, self._url),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C goes to the whole foreground group; the workers are to hear it from here, once.
                start_new_session=True,
            )

    def _log_file(self, number: int) -> Path:
        return Path(self._plan.directory) / "workers" / f"{os.getpid()}-{number}.log"

    def _look(self) -> None:
        for slot in list(self._slots):
            code = slot.process.poll()
            if code is None:
                continue
            self._slots.remove(slot)
            if code in (0, 130, 143):
                continue
            self._replace(slot, code)

    def _replace(self, slot: _Slot, code: int) -> None:
        log.warning("Worker %d ended with code %d", slot.number, code)
        lost = self._storage.reclaim(self._study_id, self._plan.retries)
        report_lost(lost)
        self._on_lost()
        finished = self._finished()
        deaths = 1 if finished > slot.done_before else slot.deaths + 1
        if deaths >= _DEATHS_IN_A_ROW:
            log.error("Worker %d died %d times in a row and is not started again", slot.number, deaths)
            if not self._slots:
                raise WorkersFailed(_last_words(self._log_file(slot.number)))
            return
        self._slots.append(_Slot(slot.number, self._start(slot.number), deaths, finished))

    def _stop(self) -> None:
        processes = [slot.process for slot in self._slots]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            except (KeyboardInterrupt, Interrupted):
                # A second Ctrl-C does not wait.
                deadline = 0.0
                process.kill()
                process.wait()
        if processes:
            report_lost(self._storage.reclaim(self._study_id, self._plan.retries))


def worker_environment(number: int, workers: int, url: str) -> dict[str, str]:
    """A worker's environment: the storage's address, its GPU and its share of the processor's cores."""
    environment = finding_this_package({**os.environ, "PIPELINE_STORAGE": url})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Each library would start a thread for every core, and the workers would get in each other's way.
    environment.setdefault("OMP_NUM_THREADS", str(max(cores // workers, 1)))
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return environment


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, without asking CUDA, which takes seconds and memory on each."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    devices = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(devices.iterdir())))] if devices.is_dir() else []


def _last_words(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f"the workers keep dying: {lines[-1] if lines else 'they leave no word'} (all of it: {path})"
