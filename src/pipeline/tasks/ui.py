"""MLflow's pages on the tracking store, each experiment opened on its runs with what they reached."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig

from pipeline.config.nearest import suggest
from pipeline.errors import UserError
from pipeline.process_life import answer, restore
from pipeline.runs.finished import open_store
from pipeline.tracking.queries import Store

HOST = "127.0.0.1"


def run(cfg: DictConfig) -> int:
    """The task behind ``task=ui``: print where each experiment's runs are compared, and serve the pages until Ctrl-C.

    Returns:
        The exit code of MLflow's server; 0 where the store is a server itself, or Ctrl-C ended it.

    Raises:
        UserError: There is no store yet, no such experiment, or the port is taken.
    """
    store = open_store(cfg)
    served_elsewhere = store.uri.startswith(("http://", "https://"))
    port = int(cfg.task.port)
    if not served_elsewhere:
        _check_port(port)
    server = store.shown_uri if served_elsewhere else f"http://{HOST}:{port}"
    print("\n".join(addresses(store, server, cfg.task.experiment)), flush=True)
    return 0 if served_elsewhere else _serve(store.uri, Path(cfg.paths.experiments_dir), port)


def addresses(store: Store, server: str, experiment: str | None) -> list[str]:
    """A line for each experiment: its name, and the address of its runs; newest first.

    Raises:
        UserError: There is no such experiment.
    """
    views = store.views()
    known = {view.experiment for view in views}
    if experiment is not None and experiment not in known:
        raise UserError(
            f"task.experiment={experiment}: no run was recorded in it. {suggest(experiment, known)}"
        )
    shown = [view for view in views if experiment in (None, view.experiment)]
    return [f"{view.title}: {server.rstrip('/')}{view.address}" for view in shown] or [
        f"No run yet: {server}"
    ]


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"task.port={port} cannot be used ({error.strerror}); another: task.port={port + 1}"
            ) from None


def _serve(uri: str, experiments_dir: Path, port: int) -> int:
    # An address may hold a password, which the command line would show to everybody on this machine.
    environment = {
        # Seven processes that wait for work with language models, which runs of training have none of: 2 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str((experiments_dir / "artifacts").absolute()),
    }
    words = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(words, env=environment)
    # Ctrl-C reaches the server as well, which closes by itself.
    before = answer(lambda *_: None, signal.SIGINT)
    try:
        code = server.wait()
    finally:
        restore(before)
        if server.poll() is None:
            server.terminate()
            server.wait()
    return 0 if code in (0, -signal.SIGINT, 130) else code
