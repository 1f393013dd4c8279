"""The fit of ``mnist_mlp`` with a tracking server that takes 200 ms for every answer, against no tracking."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.proxy import Proxy
from benchmarks.rows import Row, alternate

DELAY = 0.2


def measure(repetitions: int) -> list[Row]:
    """Seconds of the fit alone; the server is a real one behind a proxy that waits."""
    from pipeline.config import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    def fit(*words: str) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            cfg = compose(["+experiment=mnist_mlp", "trainer.max_epochs=5", "test=false", *words])
            cfg.paths.experiments_dir = folder
            hooks = Hooks(directory=Path(run) / "run", reports=False, baseline=False)
            return train(cfg, hooks).seconds["fit"]

    with tempfile.TemporaryDirectory() as folder, slow_server(Path(folder)) as address:
        ours, theirs = alternate(
            lambda: fit(f"logger.tracking_uri={address}"), lambda: fit("logger=none"), repetitions
        )
    name = "`mnist_mlp` with a tracking server that answers in 200 ms"
    return [Row(name, f"{ours:.2f} s", f"no tracking: {theirs:.2f} s", ours / theirs, "<= 1.05")]


@contextmanager
def slow_server(folder: Path) -> Iterator[str]:
    """The address of a tracking server that lets every request wait."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--default-artifact-root", str(folder)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "mlflow", *words, *store], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        proxy = Proxy(f"http://127.0.0.1:{port}", DELAY)
        proxy.fault = "slow"
        yield proxy.address
        proxy.close()
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{address} does not answer")
