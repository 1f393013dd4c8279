"""task=ui: the addresses at which runs are compared, and what it refuses."""

from __future__ import annotations

import socket
from collections.abc import Callable

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
