"""Workers on a Ray cluster of several nodes on this machine: a node is lost, another joins, the total is exact."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import postgres
import psutil
import pytest
import toy_sweeps as toy
from hosts import Hosts
from optuna.trial import TrialState
from postgres import wait_for
from test_workers import SWEEP

from pipeline.__main__ import main
from pipeline.errors import UserError
from pipeline.sweeps.engines import Work, WorkersFailed
from pipeline.sweeps.engines.ray import Ray, RayWorkers, _body, connect
from pipeline.sweeps.plan import Plan
from pipeline.sweeps.storage import open_storage

TARGET = "pipeline.sweeps.engines.ray.Ray"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with a head that runs no worker, and a node of two cores."""
    pytest.importorskip("ray", reason="Ray is not installed here (the extra [ray])")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        # A killed node is noticed within two seconds, not in half a minute.
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
        made.add_node(num_cpus=0, _system_config=quick, **SMALL)
        yield made
    finally:
        made.shutdown()


SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def start(plan: Plan, url: str) -> subprocess.Popen[bytes]:
    path = Path(plan.directory).parent / "plan.json"
    path.write_text(json.dumps(plan.as_dict()))
    return subprocess.Popen([sys.executable, "-c", SWEEP, str(path), url], start_new_session=True)


def states(url: str) -> list[TrialState]:
    return [trial.state for trial in toy.trials(url)]


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_node_is_lost_another_joins_and_the_command_is_stopped_and_given_again(
    tmp_path: Path, cluster: Any, postgresql: postgres.Server
) -> None:
    first = cluster.add_node(num_cpus=2, **SMALL)
    launcher = {"_target_": TARGET, "address": cluster.address}
    plan = toy.plan(tmp_path, n_trials=6, n_jobs=3, runner="toy_sweeps.seconds", launcher=launcher)
    sweeping = start(plan, postgresql.url)
    # The third worker waits for room.
    wait_for(lambda: states(postgresql.url).count(TrialState.RUNNING) == 2, 120)
    cluster.remove_node(first, allow_graceful=False)
    second = cluster.add_node(num_cpus=2, **SMALL)
    wait_for(lambda: states(postgresql.url).count(TrialState.COMPLETE) >= 1, 120)
    sweeping.send_signal(signal.SIGINT)
    assert sweeping.wait(120) == 130
    assert TrialState.RUNNING not in states(postgresql.url)
    again = start(plan, postgresql.url)
    assert again.wait(200) == 0
    study = optuna.load_study(study_name="toy", storage=open_storage(postgresql.url))
    assert [trial.number for trial in study.trials] == list(range(6))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    logs = {path.name.split("-")[1] for path in (tmp_path / "sweep" / "workers").iterdir()}
    assert logs == {first.node_id[:8], second.node_id[:8]}


class RayHost:
    """A host that runs a raylet; the first is the head, which has no room for workers."""

    def __init__(self, hosts: Hosts, head: RayHost | None, logs: Path) -> None:
        self.name = hosts.add()
        self.address = hosts.address_of(self.name)
        words = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        words += [f"--node-ip-address={self.address}", f"--object-store-memory={80 * 2**20}"]
        if head is None:
            quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
            words += ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false"]
            words.append(f"--system-config={json.dumps(quick)}")
        else:
            words += [f"--address={head.address}:6379", "--num-cpus=2"]
        self._log = logs / f"{self.name}.log"
        with self._log.open("w") as log:
            command = hosts.command(self.name, words)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def has_joined(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "Ray runtime started" in self._log.read_text()

    def lose_raylet(self) -> None:
        """Kill the daemon, as a lost machine would take it."""
        [raylet] = [one for one in self._all() if one.name() == "raylet"]
        raylet.kill()

    def stop(self) -> None:
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)

    def _all(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            this = psutil.Process(self._process.pid)
            return [this, *this.children(recursive=True)]
        return []


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_of_three_hosts_one_is_lost_and_another_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_form: bool
) -> None:
    if not long_form:
        pytest.skip("runs in the long form alone (make test-faults)")
    pytest.importorskip("ray", reason="Ray is not installed here (the extra [ray])")
    with contextlib.ExitStack() as kept:
        # A token that lies in a home directory would have the head alone ask for it.
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        hosts = Hosts()
        kept.callback(hosts.remove)
        database = postgres.Server(hosts.address, hosts.subnet)
        kept.callback(database.remove)
        database.start()

        def join(head: RayHost | None) -> RayHost:
            joined = RayHost(hosts, head, tmp_path)
            kept.callback(joined.stop)
            wait_for(joined.has_joined, 120)
            return joined

        head = join(None)
        lost, _ = join(head), join(head)
        launcher = {"_target_": TARGET, "address": f"{head.address}:6379"}
        plan = toy.plan(tmp_path, n_trials=20, n_jobs=4, runner="toy_sweeps.seconds", launcher=launcher)
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(plan.as_dict()))
        words = hosts.command(head.name, [sys.executable, "-c", SWEEP, str(path), database.url])
        sweeping = subprocess.Popen(words, start_new_session=True)
        kept.callback(sweeping.kill)
        wait_for(lambda: states(database.url).count(TrialState.RUNNING) == 4, 120)
        lost.lose_raylet()
        new = join(head)
        assert sweeping.wait(300) == 0
        ended = toy.trials(database.url)
    assert [trial.number for trial in ended] == list(range(20))
    assert all(trial.state == TrialState.COMPLETE for trial in ended)
    used = Counter(trial.system_attrs["sweep:claim"]["host"] for trial in ended)
    print(f"trials by host: {dict(used)}")
    assert used[new.name] > 0


def test_what_a_worker_asks_for() -> None:
    asked = Ray.read(
        {"_target_": TARGET, "num_cpus": 4, "num_gpus": 0.5, "mem_gb": 1.5, "resources": {"TPU": 4}}
    )
    assert asked.options() == {
        "num_cpus": 4,
        "num_gpus": 0.5,
        "memory": 3 * 2**29,
        "resources": {"TPU": 4},
        "max_retries": -1,
    }
    assert "memory" not in Ray().options()


def test_what_ray_refuses_is_said() -> None:
    pytest.importorskip("ray", reason="Ray is not installed here (the extra [ray])")
    with pytest.raises(UserError, match=r"Ray refuses .*TPU.* 0\.5"):
        Ray(resources={"TPU": 0.5}).remote(lambda: None)
    assert Ray(num_cpus=1.5, resources={"TPU": 4}).remote(lambda: 3)._function() == 3


class Dying:
    """Stands in for Ray; every task handed to it ends at once with code 1."""

    exceptions = SimpleNamespace(RayError=OSError)

    def __init__(self) -> None:
        self.handed = 0

    def is_initialized(self) -> bool:
        return True

    def remote(self, **options: Any) -> Any:
        return lambda body: SimpleNamespace(remote=self._hand)

    def _hand(self, *arguments: Any) -> int:
        self.handed += 1
        return self.handed

    def wait(self, tasks: list[int], **settings: Any) -> tuple[list[int], list[int]]:
        return tasks, []

    def get(self, task: int) -> tuple[int, str, str]:
        return 1, "Error: no such study", "node:/logs/ray.log"


def test_workers_that_keep_dying_are_given_up_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Dying()
    monkeypatch.setitem(sys.modules, "ray", dying)
    monkeypatch.setattr("pipeline.sweeps.engines.ray._LOOK_SECONDS", 0.0)
    work = Work("toy", "postgresql://me@db/x", tmp_path, lambda: 2, lambda: 0, lambda: 0, lambda: None)
    watched = RayWorkers(Ray(), work)
    watched.start()
    assert [watched.look(), watched.look()] == [True, True]
    with pytest.raises(WorkersFailed, match=r"no such study \(all of it: node:/logs/ray.log\)"):
        watched.look()
    assert dying.handed == 3 * 2


class Full(Dying):
    """Stands in for Ray without room; no task ends."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: list[int] = []

    def wait(self, tasks: list[int], **settings: Any) -> tuple[list[int], list[int]]:
        return [], tasks

    def cancel(self, task: int, force: bool) -> None:
        self.cancelled.append(task)

    def shutdown(self) -> None:
        pass


def test_workers_without_room_say_so_once_and_are_taken_back_when_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, now, taken_back = Full(), [0.0], []
    monkeypatch.setitem(sys.modules, "ray", full)
    monkeypatch.setattr("pipeline.sweeps.engines.ray.time", SimpleNamespace(monotonic=lambda: now[0]))
    work = Work("toy", "url", tmp_path, lambda: 3, lambda: 1, lambda: 0, lambda: taken_back.append(now[0]))
    watched = RayWorkers(Ray(num_gpus=8), work)
    watched.start()
    said = []
    for second in range(5, 200, 5):
        now[0] = float(second)
        assert watched.look()
        said += [second] if "wait for room" in caplog.text else []
    assert said[0] in range(60, 91)
    assert caplog.text.count("2 workers wait for room") == 1 and "'num_gpus': 8" in caplog.text
    taken_back.clear()
    watched.stop()
    assert full.cancelled == [1, 2, 3] and taken_back == [195.0]


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(get_node_id=lambda: "0123456789")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    asked: list[str] = []

    class Deaf:
        def poll(self) -> None:
            raise KeyboardInterrupt

        def terminate(self) -> None:
            asked.append("terminate")

        def kill(self) -> None:
            asked.append("kill")

        def wait(self, seconds: float | None = None) -> int:
            if asked[-1] != "kill":
                raise subprocess.TimeoutExpired("worker", seconds or 0)
            return -9

    monkeypatch.setattr(subprocess, "Popen", lambda *command, **settings: Deaf())
    with pytest.raises(KeyboardInterrupt):
        _body()("toy", {}, str(tmp_path))
    assert asked == ["terminate", "kill"]


def test_ray_is_told_how_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"\[ray\]"):
        connect("auto")


def test_no_cluster_and_a_single_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "+experiment=digits_linear",
        "logger=none",
        f"paths.experiments_dir={tmp_path}",
        "hydra/launcher=ray",
    ]
    assert main(words) == 2
    assert "ray job submit" in capsys.readouterr().err
    ray = pytest.importorskip("ray", reason="Ray is not installed here (the extra [ray])")
    ray.shutdown()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    # Ray looks through the processes of this machine, where another test may have a cluster.
    monkeypatch.setattr("ray._private.services._find_address_from_flag", lambda flag: set())
    with pytest.raises(UserError, match="no Ray cluster answers"):
        connect("auto")
