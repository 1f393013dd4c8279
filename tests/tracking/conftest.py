"""A real MLflow server on loopback, a proxy before it that fails on demand, deliveries in-process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.proxy import Proxy

from pipeline.tracking import Run
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.deliveries import Deliveries
from pipeline.tracking.sender_link import SenderLink
from pipeline.tracking.store import open_client


@pytest.fixture
def no_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are journalled and nothing is delivered until the test does it."""
    monkeypatch.setattr(SenderLink, "start", lambda self: None)


@pytest.fixture
def start_run(tmp_path: Path, no_sender: None) -> Callable[..., Run]:
    """Start a run whose journal nobody delivers by itself."""

    def start(name: str = "run", **options: object) -> Run:
        settings = {"experiment": "tests", "name": name, "tracking_uri": None, **options}
        return Run.start(tmp_path / "runs" / name, experiments_dir=tmp_path / "experiments", **settings)

    return start


@pytest.fixture
def deliver(tmp_path: Path) -> Callable[..., Deliveries]:
    """Deliver a run's journal in this process, once."""

    def once(run: Run, uri: str | None = None) -> Deliveries:
        experiments_dir = tmp_path / "experiments"
        delivery = Deliveries(run.directory, absolute_uri(uri, experiments_dir), experiments_dir)
        delivery.deliver()
        return delivery

    return once


@pytest.fixture(scope="session")
def _new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def empty_store(tmp_path: Path, _new_store: Path) -> Path:
    """The embedded store, its tables made already: that takes a second."""
    (tmp_path / "experiments").mkdir()
    return Path(shutil.copy(_new_store, tmp_path / "experiments" / "mlflow.db"))


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Names a port of loopback that nothing listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """The address of a real tracking server on a SQLite store."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    stores += ["--artifacts-destination", str(folder / "kept")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *stores],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while not _answers(address):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address + "/health", timeout=1).status == 200)
    except OSError:
        return False


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """A proxy of its own for each test."""
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.close()
