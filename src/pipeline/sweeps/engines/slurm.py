"""Workers as tasks of a SLURM job array; nothing here needs SLURM's accounting."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.masking import mask
from pipeline.errors import UserError
from pipeline.process_life import finding_this_package, own_process
from pipeline.sweeps.engines import LOST_SECONDS, Starts, Work, WorkersFailed
from pipeline.sweeps.engines.environment import last_line, names_to_carry

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_STOP_SECONDS = 60.0
_COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Slurm:
    """What each worker, or a single run, asks SLURM for; the names are those of hydra-submitit-launcher.

    Args:
        partition, account, qos, constraint: As `sbatch` takes them; None leaves them out.
        timeout_min: Time limit of a task in minutes. A worker that comes to it saves, and its task is queued again.
        cpus_per_task: Number of cores.
        gpus_per_node: Number of GPUs, None for none.
        mem_gb: Memory in GB, None for the partition's default.
        nodes: Number of machines of a single run.
        tasks_per_node: Number of its processes on each machine.
        setup: Lines of shell that come before the command (`module load ...`).
        signal_delay_s: Seconds before the limit at which a task begins to save.
        additional_parameters: Further options of `sbatch`: name to value, true for one without.
        wait: Whether the command stays and shows how the sweep goes.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int = 60
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    setup: list[str] | None = None
    signal_delay_s: int = 120
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    wait: bool = True

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Slurm:
        """From `hydra.launcher`."""
        return cls(**{key: value for key, value in settings.items() if not key.startswith("_")})

    def script(self, name: str, log_file: Path, command: list[str], array: int | None = None) -> str:
        """The batch script.

        The shell stays beside the command: told that the limit is near, or that the task is to make room, it has the
        command save and end (SIGTERM, exit code 143), and queues the task again.

        Args:
            name: Name of the job.
            log_file: File that its output is added to; `%` as in SLURM's file names.
            command: Words of the command.
            array: Number of tasks, None for a job that is no array.
        """
        options = {
            "job-name": name,
            "array": None if array is None else f"0-{array - 1}",
            "output": str(log_file),
            "open-mode": "append",
            "requeue": True,
            "signal": f"B:USR1@{self.signal_delay_s}",
            "time": str(self.timeout_min),
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": str(self.nodes),
            "ntasks-per-node": str(self.tasks_per_node),
            "cpus-per-task": str(self.cpus_per_task),
            "gpus-per-node": None if self.gpus_per_node is None else str(self.gpus_per_node),
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}M",
            **self.additional_parameters,
        }
        lines = [
            f"#SBATCH --{key}" if value is True else f"#SBATCH --{key}={value}"
            for key, value in options.items()
            if value is not None and value is not False
        ]
        several = self.nodes * self.tasks_per_node > 1
        words = ["srun", "--kill-on-bad-exit=1", *command] if several else command
        return "\n".join(
            [
                "#!/bin/bash",
                *lines,
                *(self.setup or []),
                'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"',
                f"{shlex.join(words)} &",
                "child=$!",
                # The number of one of an array's tasks is the array's own, and would mean all of them.
                'own="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"; own="${own:-$SLURM_JOB_ID}"',
                "trap 'stopped=1; kill -TERM \"$child\"' USR1 TERM",
                # A signal ends the shell's wait, not the child.
                'while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done',
                # Not where a person has cancelled it: the job is not running any more then.
                'if [ -n "$stopped" ] && [ "$code" = 143 ] && '
                '[ "$(squeue -h -j "$own" -o %T)" = RUNNING ]; then scontrol requeue "$own"; fi',
                'exit "$code"',
                "",
            ]
        )


class NoAnswer(UserError):
    """SLURM's controller is away, or answers too late."""


class SlurmWorkers:
    """Keeps workers alive as tasks of job arrays.

    Args:
        slurm: What each of them asks for.
        work: The sweep.
    """

    outlives = True

    def __init__(self, slurm: Slurm, work: Work) -> None:
        self._slurm, self._work = slurm, work
        # Told by it from what others run, and found again by the next command.
        self.name = f"pipeline-{re.sub(r'[^A-Za-z0-9_.-]', '_', work.study)}-{_digest(work.url)}"
        self._looked = self._asked = 0.0
        self._starts = Starts()
        self._away = False

    def start(self) -> None:
        """Submit the workers that are missing."""
        require_slurm()
        there = len(tasks(self.name))
        if there:
            log.info("%d workers of this study are in SLURM's queue already", there)
        self._submit(there, self._work.wanted() - there)

    def look(self) -> bool:
        """Every two seconds: submit workers that are missing; gives whether there is work left.

        Raises:
            WorkersFailed: Workers that were submitted three times in a row finished no trial, and none is left.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return True
        self._looked = time.monotonic()
        wanted = self._work.wanted()
        if wanted <= 0:
            return False
        try:
            there = len(tasks(self.name))
            # A task that waits may stand in for one that is gone: there are enough of them then.
            if there < wanted or self._looked - self._asked > LOST_SECONDS:
                self._asked = self._looked
                self._work.on_lost()
            self._submit(there, wanted - there)
        except NoAnswer as error:
            # The workers need no controller to go on, and what became of a job that was handed in shows later.
            if not self._away:
                log.warning("%s; asked again until it does", error)
            self._away = True
        else:
            self._away = False
        return True

    def _submit(self, there: int, count: int) -> None:
        if count <= 0:
            return
        finished = self._work.finished()
        if not self._starts.may_go_on(finished):
            if there:
                # Those that live may finish trials yet.
                return
            raise WorkersFailed(self._last_words())
        logs = self._work.directory / "workers"
        logs.mkdir(parents=True, exist_ok=True)
        command = own_process("pipeline.sweeps.worker", "--study", self._work.study)
        script = self._slurm.script(self.name, logs / "slurm-%A_%a.log", command, array=count)
        number = submit(script, {**os.environ, "PIPELINE_STORAGE": self._work.url})
        self._starts.note(finished)
        log.info("SLURM's job %s: %d workers (logs: %s)", number, count, logs)

    def stop(self, seconds: float | None = None) -> None:
        """Cancel all workers, and wait for them to give their trials back."""
        _run(["scancel", "--user", getpass.getuser(), "--name", self.name])
        deadline = time.monotonic() + (_STOP_SECONDS if seconds is None else seconds)
        while tasks(self.name) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 4)

    def _last_words(self) -> str:
        logs = sorted(
            (self._work.directory / "workers").glob("slurm-*.log"), key=lambda path: path.stat().st_mtime
        )
        return last_line(logs[-1] if logs else None)


def require_slurm() -> None:
    """Refuse to begin where SLURM's commands are missing.

    Raises:
        UserError: They are.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm: {', '.join(missing)} not found here; give this command on a login node of the "
            "cluster, or leave the launcher out to work on this machine"
        )


def submit(script: str, environment: Mapping[str, str]) -> str:
    """Hand a batch script to SLURM; gives the job's number.

    Args:
        script: The script.
        environment: Variables; those that a worker needs are taken along, none of them a password.

    Raises:
        UserError: SLURM refuses it, or does not answer.
    """
    carried = finding_this_package(environment)
    names = names_to_carry(carried)
    done = _run(["sbatch", "--parsable", f"--export={','.join(names)}"], script, carried)
    if done.returncode:
        raise UserError(f"SLURM refuses the job: {mask(done.stderr.strip())}")
    return done.stdout.strip().split(";")[0]


def tasks(name: str) -> list[str]:
    """The states of this user's tasks of a name that wait or run.

    Raises:
        NoAnswer: SLURM does not say.
    """
    done = _run(["squeue", "-h", "-r", "-u", getpass.getuser(), "-n", name, "-o", "%T"])
    # A controller that is away for a moment has not lost its jobs.
    if done.returncode:
        raise NoAnswer(f"SLURM does not answer: {mask(done.stderr.strip())}")
    return [state for state in done.stdout.split() if state != "COMPLETING"]


def _run(
    words: list[str], script: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            input=script,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"SLURM does not answer: {words[0]} took over {_COMMAND_SECONDS:g} s") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
