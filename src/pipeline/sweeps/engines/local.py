"""Workers as processes of this machine: started, watched, replaced when they die, and stopped together."""

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
from pipeline.process_life import own_process
from pipeline.sweeps.attempt import report_lost
from pipeline.sweeps.engines import DEATHS_IN_A_ROW, WorkersFailed
from pipeline.sweeps.engines.environment import last_line, worker_environment
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.storage import SweepStorage

log = logging.getLogger(__name__)

# A worker saves its trial's state before it goes; one that takes longer is killed.
_STOP_SECONDS = 30.0


@dataclass
class _Slot:
    number: int
    process: subprocess.Popen[bytes]
    deaths: int = 0
    done_before: int = 0


class LocalWorkers:
    """Runs a plan's workers as processes of their own.

    Args:
        plan: The sweep.
        url: Address of the storage; given to them in the environment alone, since it may hold a password.
        storage: The same storage, opened.
        study_id: Id of the study in it.
        finished: Function that gives the number of finished trials.
        on_lost: Function called after trials of dead workers were taken back.
    """

    outlives = False

    def __init__(
        self,
        plan: Plan,
        url: str,
        storage: SweepStorage,
        study_id: int,
        finished: Callable[[], int],
        on_lost: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._url = url
        self._storage = storage
        self._study_id = study_id
        self._finished = finished
        self._on_lost = on_lost
        self._slots: list[_Slot] = []

    def start(self) -> None:
        """Start the workers."""
        for number in range(min(self._plan.n_jobs, self._plan.n_trials)):
            self._slots.append(_Slot(number, self._start(number)))

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        output = self._log_file(number)
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as file:
            return subprocess.Popen(
                own_process(
                    "pipeline.sweeps.worker", "--study", self._plan.study_name, "--parent", str(os.getpid())
                ),
                env=worker_environment(number, self._plan.n_jobs, self._url),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C goes to the whole foreground group; the workers are to hear it from here, once.
                start_new_session=True,
            )

    def _log_file(self, number: int) -> Path:
        return Path(self._plan.directory) / "workers" / f"{os.getpid()}-{number}.log"

    def look(self) -> bool:
        """Replace workers that died; gives whether any is left: one that has nothing left to do ends by itself.

        Raises:
            WorkersFailed: The workers keep dying.
        """
        for slot in list(self._slots):
            code = slot.process.poll()
            if code is None:
                continue
            self._slots.remove(slot)
            if code in (0, 130, 143):
                continue
            self._replace(slot, code)
        return bool(self._slots)

    def _replace(self, slot: _Slot, code: int) -> None:
        log.warning("Worker %d ended with code %d", slot.number, code)
        lost = self._storage.reclaim(self._study_id, self._plan.retries)
        report_lost(lost)
        self._on_lost()
        finished = self._finished()
        deaths = 1 if finished > slot.done_before else slot.deaths + 1
        if deaths >= DEATHS_IN_A_ROW:
            log.error("Worker %d died %d times in a row and is not started again", slot.number, deaths)
            if not self._slots:
                raise WorkersFailed(last_line(self._log_file(slot.number)))
            return
        self._slots.append(_Slot(slot.number, self._start(slot.number), deaths, finished))

    def stop(self, seconds: float | None = None) -> None:
        """End all workers that are left; those that take longer are killed, and their trials taken back."""
        processes = [slot.process for slot in self._slots]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + (_STOP_SECONDS if seconds is None else seconds)
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
