"""A tracking server that is not there at the start, and is killed for a minute in the middle of a real run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.runs.result import RunResult
from pipeline.tracking.sender_link import is_delivered
from pipeline.tracking.store import open_client

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FaultRecorder = Callable[[str, int, int, int], None]


class Server:
    """A real tracking server that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "kept")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def answers(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.address}/health", timeout=1).status == 200)
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.mark.timeout(400)
def test_a_server_that_is_away_for_a_minute_costs_neither_a_record_nor_the_run(
    server: Server, tmp_path: Path, long_form: bool, record_fault: FaultRecorder
) -> None:
    if not long_form:
        pytest.skip("in the long form (--long): it takes a minute; the short ones are in tests/tracking")
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "pipeline",
                "experiment=digits_mlp",
                "trainer=cpu",
                "model.hidden_units=[16]",
            ),
            *("trainer.max_epochs=100000", "trainer.max_time=00:00:01:45", "callbacks.progress=null"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": server.address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Not there at the start, then for a while, then killed for a minute, then there again.
    time.sleep(15)
    server.start()
    time.sleep(10)
    server.kill()
    time.sleep(60)
    assert process.poll() is None
    server.start()
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    # What was still on its way when the command ended is delivered behind it.
    (result,) = [RunResult.read(path) for path in tmp_path.glob("experiments/runs/*/*/result.json")]
    deadline = time.monotonic() + 120
    while not is_delivered(result.directory):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    client = open_client(server.address)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    expected = [tuple(point) for point in result.history["train/loss"]]
    found = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")]
    lost = len(set(expected) - set(found))
    record_fault("tracking server killed for a minute", 2, 2, lost)
    assert found == expected
