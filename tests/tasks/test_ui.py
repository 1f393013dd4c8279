"""task=ui: the addresses at which runs are compared, and what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.runs.finished import open_store
from pipeline.runs.result import RunResult
from pipeline.tasks import ui as task

Command = Callable[..., DictConfig]


def test_every_experiment_has_an_address_and_one_can_be_asked_for(
    command: Command, finished: dict[str, RunResult]
) -> None:
    cfg = command("task=ui")
    store = open_store(cfg)
    lines = task.addresses(store, "http://127.0.0.1:5000/", None)
    name = finished["mlp"].experiment
    (one,) = task.addresses(store, "http://127.0.0.1:5000/", name)
    assert one in lines and len(lines) >= len({run.experiment for run in finished.values()})
    assert one.startswith(f"{name}: http://127.0.0.1:5000/#/experiments/") and "viewStateShareKey=" in one
    with pytest.raises(UserError, match=r"task\.experiment=nothing.*"):
        task.addresses(store, "http://127.0.0.1:5000", "nothing")


def test_a_port_that_is_taken_is_named(command: Command, finished: dict[str, RunResult]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"task.port={port} .*task.port={port + 1}"):
            task.run(command("task=ui", f"task.port={port}"))


@pytest.mark.slow
def test_mlflows_pages_are_served_by_few_processes_until_ctrl_c(
    tmp_path: Path,
    with_store: Callable[[Path], Path],
    free_port: Callable[[], int],
    answers: Callable[[str], bool],
) -> None:
    port = free_port()
    words = [f"paths.experiments_dir={with_store(tmp_path / 'experiments')}", f"task.port={port}"]
    # Nothing outside says that there are to be few.
    environment = {
        name: value for name, value in os.environ.items() if name != "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"
    }
    command = [sys.executable, "-m", "pipeline", "task=ui", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        started = [
            " ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)
        ]
        process.send_signal(signal.SIGINT)
        # A terminal's Ctrl-C reaches the server as well.
        for child in psutil.Process(process.pid).children():
            child.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert started and not any("huey" in command or "job" in command for command in started), started
