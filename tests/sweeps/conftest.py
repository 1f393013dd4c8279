"""A PostgreSQL server of a test's own; worker processes import the toy trials too."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import postgres
    import slurm_cluster

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))


@pytest.fixture
def postgresql() -> Iterator[postgres.Server]:
    # Found once this directory is on the path.
    import postgres

    server = postgres.Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[slurm_cluster.Cluster]:
    """Two SLURM nodes, of as many cores each as the test asks for (`indirect`), else of four."""
    from slurm_cluster import Cluster

    found = Cluster(cpus=getattr(request, "param", 4))
    monkeypatch.setenv("SLURM_CONF", found.environment["SLURM_CONF"])
    try:
        found.start()
        yield found
    finally:
        found.stop()
