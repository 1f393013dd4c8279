"""A real MLflow server on loopback, a proxy before it that fails on demand, deliveries in-process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.proxy import Proxy

from pipeline.tracking import Run
from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.deliveries import Deliveries
from pipeline.tracking.sender_link import SenderLink


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


@pytest.fixture
def empty_store(tmp_path: Path, with_store: Callable[[Path], Path]) -> Path:
    """The embedded store, its tables made already."""
    return with_store(tmp_path / "experiments") / "mlflow.db"


@pytest.fixture(scope="session")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, serve_mlflow: Callable[[Path], Any]
) -> Iterator[str]:
    """The address of a real tracking server on a SQLite store."""
    with serve_mlflow(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    """A proxy of its own for each test."""
    proxy = Proxy(mlflow_server)
    yield proxy
    proxy.close()
