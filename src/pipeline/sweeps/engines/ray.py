"""Workers as tasks of a Ray cluster: it finds room for them, adds nodes, and starts those of a lost node elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.process_life import answer, finding_this_package, interrupt
from pipeline.sweeps.engines import LOST_SECONDS, Starts, Work, WorkersFailed
from pipeline.sweeps.engines.environment import names_to_carry

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_STOP_SECONDS = 60.0
_ROOM_SECONDS = 60.0


def is_ray(launcher: Mapping[str, Any]) -> bool:
    """Whether `hydra.launcher` is this one."""
    return str(launcher.get("_target_")) == f"{__name__}.{Ray.__name__}"


@dataclass(frozen=True)
class Ray:
    """What each worker asks a Ray cluster for.

    Args:
        address: Address of the cluster, as `ray.init` takes it; `auto` is the one that this machine belongs to.
        num_cpus: Number of cores.
        num_gpus: Number of GPUs; half a one leaves room for another worker on the same.
        mem_gb: Memory in GB, None for no claim.
        resources: Further resources by the name that the cluster has for them.
    """

    address: str = "auto"
    num_cpus: float = 1
    num_gpus: float = 0
    mem_gb: float | None = None
    resources: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Ray:
        """From `hydra.launcher`."""
        return cls(**{key: value for key, value in settings.items() if not key.startswith("_")})

    def options(self) -> dict[str, Any]:
        """Arguments of `ray.remote`. Ray starts a task of a lost node again however often that happens."""
        memory = {} if self.mem_gb is None else {"memory": round(self.mem_gb * 2**30)}
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "resources": self.resources,
            "max_retries": -1,
            **memory,
        }

    def remote(self, body: Callable[..., Any]) -> Any:
        """What `ray.remote` makes of a function.

        Raises:
            UserError: Ray is not installed, or refuses what each worker asks for.
        """
        try:
            return _installed().remote(**self.options())(body)
        except (TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher: Ray refuses what each worker asks for ({error})") from None


class RayWorkers:
    """Keeps workers alive as tasks of Ray. They end with the command that started them.

    Args:
        ray: What each of them asks for.
        work: The sweep.
    """

    outlives = False

    def __init__(self, ray: Ray, work: Work) -> None:
        self._ray, self._work = ray, work
        self._tasks: list[Any] = []
        self._looked = self._asked = 0.0
        self._starts = Starts()
        self._said = "they leave no word"
        self._short_since: float | None = None
        self._told = False

    def start(self) -> None:
        """Hand the workers to Ray.

        Raises:
            UserError: Ray is not installed, or no cluster answers.
        """
        connect(self._ray.address)
        self._submit(self._work.wanted())

    def look(self) -> bool:
        """Every second: replace workers that ended early; gives whether any has something left to do.

        Raises:
            WorkersFailed: Workers that were started three times in a row finished no trial, and none is left.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return True
        self._looked = time.monotonic()
        self._collect()
        missing = self._work.wanted() - len(self._tasks)
        if missing > 0 or self._looked - self._asked > LOST_SECONDS:
            self._asked = self._looked
            self._work.on_lost()
            self._tell_of_waiting()
        if self._work.wanted() <= 0:
            # Those that wait for room would find nothing to do any more.
            return bool(self._tasks) and self._work.running() > 0
        self._submit(missing)
        return True

    def _tell_of_waiting(self) -> None:
        """Say once that workers found no room for a minute: what they ask for may be more than any node has."""
        waiting = len(self._tasks) - self._work.running()
        if waiting <= 0:
            self._short_since = None
            return
        if self._short_since is None:
            self._short_since = self._looked
        if self._looked - self._short_since >= _ROOM_SECONDS and not self._told:
            self._told = True
            asked = {name: amount for name, amount in self._ray.options().items() if name != "max_retries"}
            log.warning("%d workers wait for room: each asks a node of the cluster for %s", waiting, asked)

    def _collect(self) -> None:
        """Take the tasks that ended off the list, and note what they said."""
        import ray

        if not self._tasks:
            return
        ended, self._tasks = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        for task in ended:
            try:
                code, said, place = ray.get(task)
            except ray.exceptions.RayError as error:
                self._said = str(error).strip().splitlines()[-1]
                log.warning("A worker's task failed: %s", self._said)
                continue
            if code:
                self._said = f"{said} (all of it: {place})"
                log.warning("A worker ended with code %d: %s", code, self._said)

    def _submit(self, count: int) -> None:
        if count <= 0:
            return
        finished = self._work.finished()
        if not self._starts.may_go_on(finished):
            if self._tasks:
                # Those that live may finish trials yet.
                return
            raise WorkersFailed(f"the workers keep dying: {self._said}")
        environment = finding_this_package({**os.environ, "PIPELINE_STORAGE": self._work.url})
        carried = {name: environment[name] for name in names_to_carry(environment, alike=False)}
        remote = self._ray.remote(_body())
        logs = str(self._work.directory / "workers")
        self._tasks += [remote.remote(self._work.study, carried, logs) for _ in range(count)]
        self._starts.note(finished)
        log.info("%d workers handed to Ray (logs: %s on their nodes)", count, logs)

    def stop(self, seconds: float | None = None) -> None:
        """Cancel all workers, and wait for them to give their trials back; those of killed ones are taken back."""
        import ray

        if not ray.is_initialized():
            return
        for task in self._tasks:
            ray.cancel(task, force=False)
        if self._tasks:
            most = _STOP_SECONDS if seconds is None else seconds
            _, self._tasks = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=most)
            self._work.on_lost()
        ray.shutdown()


def connect(address: str) -> None:
    """Become a driver of a cluster that runs.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    ray = _installed()
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(
            f"hydra.launcher.address={address}: no Ray cluster answers ({said}). Start one (ray start --head; on other "
            "machines ray start --address=HOST:6379), or give the address of one that runs; one that asks for a token "
            "has to be told RAY_AUTH_MODE=token here too, and to find the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from None
    # Ray answers the signal in its own way from then on.
    answer(interrupt, signal.SIGTERM)


def _installed() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            "hydra/launcher=ray needs Ray: pip install 'hydra-lightning-pipeline[ray]', in the version of the cluster"
        ) from None
    return ray


def _body() -> Any:
    """What a task does: run a worker as a process, and give its exit code, its last line, and where its log is.

    A function of its own each time, which Ray sends as code: the process that runs it need not find this package.
    """

    def work(study: str, environment: dict[str, str], logs: str) -> tuple[int, str, str]:
        import contextlib
        import os
        import pathlib
        import socket
        import subprocess
        import sys
        import time

        import ray

        node = ray.get_runtime_context().get_node_id()
        file = pathlib.Path(logs) / f"ray-{node[:8]}-{os.getpid()}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        worker = [sys.executable, "-P", "-m", "pipeline.sweeps.worker"]
        with file.open("ab") as output:
            process = subprocess.Popen(
                [*worker, "--study", study, "--parent", str(os.getpid())],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            # Ray cancels a task by an exception between two of its steps, not within a wait.
            while process.poll() is None:
                time.sleep(0.2)
        except BaseException:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(50)
            finally:
                # One that saved nothing by then is killed; of one that ended nothing is left to kill.
                process.kill()
                process.wait()
            raise
        lines = file.read_text(errors="replace").strip().splitlines()
        return process.returncode, lines[-1] if lines else "", f"{socket.gethostname()}:{file}"

    return work
