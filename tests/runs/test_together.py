"""Processes that learn their directory from the first of them; nobody waits for ever."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.meeting import meet
from pipeline.runs.result import RunResult
from pipeline.runs.together import Place, hear, place, tell
from pipeline.runs.train import train
from pipeline.training.checkpoints import load_checkpoint

SMALL = ["experiment=digits_mlp", "model.hidden_units=[16]", "trainer=ddp_cpu", "trainer.devices=1"]


def test_each_hears_what_the_first_tells_whatever_an_earlier_launch_left(tmp_path: Path) -> None:
    heard: dict[int, str] = {}
    # A process of an earlier launch of that name asked, and was killed.
    with pytest.raises(UserError, match="rank 0 did not answer rank 1 within"):
        hear(tmp_path, Place(1, 3, "x"), 0.2)
    (tmp_path / ".together" / "x" / "1.asks").write_text("left behind")

    def ask(rank: int) -> None:
        heard[rank] = hear(tmp_path, Place(rank, 3, "x"), 20)["directory"]

    threads = [threading.Thread(target=ask, args=(rank,)) for rank in (1, 2)]
    for thread in threads:
        thread.start()
    tell(tmp_path, Place(0, 3, "x"), {"directory": "here"}, 20)
    for thread in threads:
        thread.join()
    assert heard == {1: "here", 2: "here"}
    # Nothing is left where runs are listed.
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 of 3 processes did not come .*ranks 1, 2"):
        tell(tmp_path, Place(0, 3, "x"), {}, 0.3)


def test_where_a_process_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() is None
    for name, value in {"JOB_ID": "7", "STEP_ID": "0", "NTASKS": "4", "PROCID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = place()
    assert found is not None and (found.rank, found.size) == (3, 4)
    # Workers of a sweep, each of which is alone.
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert place() is None


@pytest.mark.parametrize(
    ("rank", "host", "reason"),
    [
        (0, "no-such-node.invalid", "not known|failure in name"),
        (1, "no-such-node.invalid", "not known|failure in name"),
        (1, "192.0.2.77", "timed out|route|unreachable"),
    ],
)
def test_a_first_node_that_is_not_there_is_told_in_time(rank: int, host: str, reason: str) -> None:
    environment = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": host, "MASTER_PORT": "29511", "RANK": str(rank)}
    code = (
        "from pipeline.runs.meeting import meet; from pipeline.runs.together import place\n"
        "import os; os.environ['WORLD_SIZE'] = '2'; meet(place(), 2.0)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stderr.strip().splitlines()[-1]
    assert (
        f"rank {rank} of 2 did not find the others at MASTER_ADDR={host} MASTER_PORT=29511 within 2 s" in said
    )
    assert re.search(reason, said, re.IGNORECASE)
    assert time.monotonic() - began < 40


def test_a_process_that_does_not_come_is_missed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"rank 0 of 2 .* within 2 s \(.*1/2 clients"):
        meet(Place(0, 2, "x"), 2.0)


@pytest.mark.slow
def test_two_nodes_are_one_run_and_go_on_as_one(tmp_path: Path) -> None:
    """As torchrun starts them, one process a node."""
    codes, errors = _launch(tmp_path, "trainer.max_epochs=2")
    assert codes == [0, 0], errors
    [directory] = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    first = RunResult.read(directory)
    assert len(first.history["train/loss"]) == 2
    assert load_checkpoint(directory / "checkpoints/last.ckpt")["epoch"] == 1
    assert "test/accuracy" in first.metrics


PLAIN = [
    "model.batch_norm=false",
    "model.dropout=0",
    "data.train_samples=320",
    "data.validation_fraction=0.2",
]
PLAIN += ["logger=none", "trainer.max_epochs=20"]


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_node_is_lost_the_others_say_so_and_the_same_command_goes_on(
    tmp_path: Path, long_form: bool, record_fault: Callable[[str, int, int, int], None]
) -> None:
    if not long_form:
        pytest.skip("runs in the long form alone (make test-faults)")
    words = [*PLAIN, "data.batch_size=16", "checkpoint.every_seconds=0"]
    first, second = _start(tmp_path, *words)
    assert first.stderr is not None
    # Not each epoch is said where they follow fast.
    assert any(re.match(r"epoch ([3-9]|1[0-6])/", line) for line in first.stderr)
    second.kill()
    began = time.monotonic()
    _, said = first.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert first.returncode == 1 and "Error: " in said and "Traceback (" not in said, said
    print(f"{time.monotonic() - began:.1f} s after the kill: {said}")

    codes, errors = _launch(tmp_path, *words)
    assert codes == [0, 0], errors
    [directory] = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    together = RunResult.read(directory)
    assert [epoch for epoch, _ in together.history["train/loss"]] == list(range(1, 21))
    # As good as one process with twice the batch.
    cfg = compose([*SMALL[:2], *PLAIN, "trainer=cpu", "data.batch_size=32"])
    alone = train(cfg, Hooks(directory=tmp_path / "alone", reports=False))
    accuracies = [result.metrics["test/accuracy"] for result in (together, alone)]
    print(f"test accuracy of two processes, and of one: {accuracies}")
    assert together.metrics["train/loss"] == pytest.approx(alone.metrics["train/loss"], rel=1e-3)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1 / 360 + 1e-6)
    record_fault("node of a training on two nodes killed", 1, 1, 0)


def _launch(tmp_path: Path, *words: str) -> tuple[list[int], list[str]]:
    processes = _start(tmp_path, *words)
    with ThreadPoolExecutor() as pool:
        errors = [said for _, said in pool.map(lambda process: process.communicate(timeout=300), processes)]
    return [process.returncode for process in processes], errors


def _start(tmp_path: Path, *words: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pipeline",
                *SMALL,
                "trainer.num_nodes=2",
                "logger=none",
                "resume=auto",
                *words,
            ],
            cwd=tmp_path,
            env={**os.environ, **shared, "RANK": str(rank), "GROUP_RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
