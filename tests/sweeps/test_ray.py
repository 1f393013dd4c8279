"""Workers on a Ray cluster of several nodes on this machine: a node is lost, another joins, the total is exact."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import postgres
import pytest
import toy_sweeps as toy
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
