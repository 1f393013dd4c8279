"""Servers that fail and processes that vanish: every record arrives once, in the order it was made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import Run, life, registry, sync
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.process import this_process
from pipeline.tracking.sender import Sender
from pipeline.tracking.store import open_client

pytestmark = pytest.mark.faults

Record = Callable[[str, int, int, int], None]


class SenderInThread:
    """The sender's own loop on a thread, told by a pipe as the process is."""

    def __init__(self, experiments_dir: Path) -> None:
        reading, self._commands = os.pipe()
        self.sender = Sender(experiments_dir, reading)
        self._thread = threading.Thread(target=self.sender.run, daemon=True)
        self._thread.start()
        self.tell({"owner": this_process()})

    def tell(self, message: dict[str, object]) -> None:
        os.write(self._commands, json.dumps(message).encode() + b"\n")

    def watch(self, run: Run, uri: str) -> None:
        self.tell({"watch": str(run.directory), "uri": uri})

    def close(self) -> None:
        os.close(self._commands)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[SenderInThread]:
    sender = SenderInThread(tmp_path / "experiments")
    yield sender
    sender.close()


@pytest.fixture(autouse=True)
def _no_hidden_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sender process sets it: repeating is left to the delivery."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def delivered(run: Run) -> bool:
    from pipeline.tracking.sender_link import is_delivered

    return is_delivered(run.directory)


def steps(client: Any, run: Run, key: str = "loss") -> list[int]:
    """In the order in which the server got them."""
    return [point.step for point in client.get_metric_history(run.run_id, key)]


@pytest.mark.parametrize("fault", ["down", "error", "slow", "deaf"])
def test_a_failing_server_costs_no_record(
    fault: str, proxy: Any, start_run: Callable[..., Run], sender: SenderInThread, record_fault: Record
) -> None:
    client = open_client(proxy.address)
    proxy.fault = fault
    run = start_run(experiment=f"faults-{fault}", tracking_uri=proxy.address)
    sender.watch(run, proxy.address)
    for step in range(10):
        run.log_metrics({"loss": step}, step)
    wait_for(lambda: proxy.faults_met >= 1)
    proxy.fault = None
    wait_for(lambda: delivered(run))
    # Again, in the middle of the run.
    proxy.fault, met = fault, proxy.faults_met
    for step in range(10, 20):
        run.log_metrics({"loss": step}, step)
        run.log_text(str(step), f"{step}.txt")
    wait_for(lambda: proxy.faults_met >= met + 2)
    proxy.fault = None
    run.finish()
    wait_for(lambda: delivered(run))
    found = steps(client, run)
    record_fault(f"tracking server: {fault}", proxy.faults_met, proxy.faults_met, 20 - len(set(found)))
    assert found == list(range(20))
    assert len(client.list_artifacts(run.run_id)) == 10
    assert client.get_run(run.run_id).info.status == "FINISHED"
    experiment = client.get_experiment_by_name(f"faults-{fault}")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_sender_that_is_killed_between_any_two_steps_costs_nothing(
    proxy: Any, start_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Each delivery is cut off by a fault after a few requests and begun again from the disk."""
    run = start_run(experiment="cut", tracking_uri=proxy.address)
    for step in range(6):
        run.log_metrics({"loss": step}, step)
        run.log_text(str(step), f"{step}.txt")
    run.finish()
    client = open_client(proxy.address)
    for _ in range(40):
        delivery = Delivery(run.directory, proxy.address, tmp_path / "experiments")
        counter = iter(["", "", "deaf"])
        original = delivery._send_once

        def cut(group: Any, original: Any = original, counter: Any = counter) -> None:
            proxy.fault = next(counter, "down") or None
            original(group)

        delivery._send_once = cut  # type: ignore[method-assign]
        try:
            delivery.deliver()
        except Exception:
            proxy.fault = None
            continue
        break
    proxy.fault = None
    assert steps(client, run) == list(range(6))
    assert len(client.list_artifacts(run.run_id)) == 6


def test_a_server_that_is_down_is_given_up_quickly_and_synced_later(tmp_path: Path, proxy: Any) -> None:
    proxy.fault = "down"
    program = """
        run.log_metrics({"loss": 1.0}, 0)
        run.finish()
        import time
        deadline = time.time() + 20
        while not (run.directory / "tracking" / "cursor.json").exists() and time.time() < deadline:
            time.sleep(0.05)
        print("waiting from", time.time(), flush=True)
    """
    process = run_program(program, tmp_path, proxy.address)
    output, errors = process.communicate(timeout=60)
    waited = time.time() - float(output.split()[-1])
    assert process.returncode == 0
    assert "task=sync" in errors and len(errors.splitlines()) == 1
    assert waited < 5
    proxy.fault = None
    experiments = tmp_path / "experiments"
    wait_for(lambda: not sync(experiments).failed and not registry.pending_runs(experiments), 40)
    directory = tmp_path / "runs" / "a"
    [record] = [entry for entry in registry.known_runs(experiments) if entry["directory"] == str(directory)]
    client = open_client(proxy.address)
    found = client.search_runs([client.get_experiment_by_name("program").experiment_id])
    mine = [run for run in found if run.data.tags["pipeline.key"] == record["key"]]
    assert [run.data.metrics for run in mine] == [{"loss": 1.0}] and mine[0].info.status == "FINISHED"


def run_program(
    program: str, tmp_path: Path, uri: str | None = None, name: str = "a"
) -> subprocess.Popen[str]:
    """A process that starts a run and goes on with some lines of its own."""
    code = f"""
import sys
from pathlib import Path
from pipeline.tracking import Run
base = Path({str(tmp_path)!r})
run = Run.start(base / "runs" / {name!r}, experiment="program", name={name!r}, tracking_uri={uri!r},
                experiments_dir=base / "experiments")
assert not any(name.split(".")[0] in ("mlflow", "torch", "pandas", "numpy") for name in sys.modules)
{textwrap.dedent(program)}
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


def test_a_killed_process_leaves_a_killed_run_with_all_its_records(
    tmp_path: Path, record_fault: Record
) -> None:
    program = """
        for step in range(100):
            run.log_metrics({"loss": step}, step)
        print("ready", flush=True)
        import time
        time.sleep(60)
    """
    process = run_program(program, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    experiments = tmp_path / "experiments"
    # Its own sender outlives it, says so and delivers.
    wait_for(
        lambda: life(tmp_path / "runs" / "a").status == "KILLED" and not registry.pending_runs(experiments)
    )
    client = open_client(absolute_uri(None, experiments))
    [run] = client.search_runs([client.get_experiment_by_name("program").experiment_id])
    assert run.info.status == "KILLED" and run.info.end_time >= run.info.start_time
    found = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    record_fault("process killed: its tracked records", 1, 1, 100 - len(found))
    assert found == list(range(100))


def test_a_sender_that_is_killed_is_replaced(tmp_path: Path, record_fault: Record) -> None:
    program = """
        import os, signal
        from pipeline.tracking.sender_link import link
        for attempt in range(2):
            for step in range(50):
                run.log_metrics({"loss": step}, 50 * attempt + step)
            os.kill(link(base / "experiments")._process.pid, signal.SIGKILL)
        run.finish()
    """
    process = run_program(program, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    client = open_client(absolute_uri(None, tmp_path / "experiments"))
    [run] = client.search_runs([client.get_experiment_by_name("program").experiment_id])
    found = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    record_fault("sender killed", 2, 2, 100 - len(found))
    assert found == list(range(100)) and run.info.status == "FINISHED"


def test_runs_start_at_once_on_a_new_store(tmp_path: Path, record_fault: Record, long_form: bool) -> None:
    count = 8 if long_form else 3
    program = "run.log_metrics({'loss': 1.0}, 0); run.finish()"
    processes = [run_program(program, tmp_path, name=f"r{number}") for number in range(count)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    client = open_client(absolute_uri(None, tmp_path / "experiments"))
    runs = client.search_runs([client.get_experiment_by_name("program").experiment_id])
    record_fault("runs starting at once on a new store", count, len(runs), count - len(runs))
    assert sorted(run.info.run_name for run in runs) == [f"r{number}" for number in range(count)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics["loss"] == 1.0 for run in runs)


def test_the_next_run_delivers_what_an_earlier_one_could_not(
    start_run: Callable[..., Run], sender: SenderInThread, tmp_path: Path
) -> None:
    uri = absolute_uri(None, tmp_path / "experiments")
    left = start_run("left")
    left.log_metrics({"loss": 1.0}, 0)
    left.finish()
    new = start_run("new")
    sender.watch(new, uri)
    wait_for(lambda: delivered(left) and delivered(new))
    new.finish()
    wait_for(lambda: not registry.pending_runs(tmp_path / "experiments"))
    assert {run.info.run_name for run in open_client(uri).search_runs(["1"])} == {"left", "new"}


def test_system_metrics_arrive_under_mlflows_names(
    start_run: Callable[..., Run], sender: SenderInThread, tmp_path: Path
) -> None:
    uri = absolute_uri(None, tmp_path / "experiments")
    with_them, without = start_run("with"), start_run("without", system_metrics=False)
    sender.watch(with_them, uri)
    sender.watch(without, uri)
    wait_for(lambda: (with_them.directory / "tracking" / "system.jsonl").exists())
    with_them.finish()
    without.finish()
    wait_for(lambda: not registry.pending_runs(tmp_path / "experiments"))
    sampled = open_client(uri).get_run(with_them.run_id).data.metrics
    assert 0 <= sampled["system/cpu_utilization_percentage"] <= 100
    assert sampled["system/system_memory_usage_megabytes"] > 0
    assert open_client(uri).get_run(without.run_id).data.metrics == {}
