"""A disk that is full, for real: a clear message, the last good state, no corrupt file, and on when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.runs.result import RunResult
from pipeline.tracking import drain
from pipeline.tracking.queries import Store
from pipeline.training.checkpoints import AtomicCheckpointIO, load_checkpoint

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FaultRecorder = Callable[[str, int, int, int], None]

WORDS = [
    *(
        "experiment=digits_mlp",
        "trainer=cpu",
        "model.hidden_units=[64]",
        "model.dropout=0.2",
        "data.batch_size=64",
    ),
    *("checkpoint.every_n_steps=5", "callbacks.progress=null"),
]


def start(directory: Path, *words: str, limit: int | None = None) -> subprocess.Popen[str]:
    """A command whose experiments lie in ``directory``; ``limit`` is the largest size of a file in bytes."""
    program = "import sys; from pipeline.__main__ import main; sys.exit(main())"
    if limit is not None:
        program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); {program}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *WORDS, f"paths.experiments_dir={directory / 'experiments'}", *words],
        cwd=directory.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
            "OMP_NUM_THREADS": "1",
        },
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the room that is left."""
    filler = place / "filler"
    with filler.open("wb") as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
    return filler


def wait_for(process: subprocess.Popen[str], place: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := list(place.glob(pattern)):
            return found[0]
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no {pattern}")


def assert_nothing_corrupt(place: Path) -> None:
    assert not [path for path in place.rglob("*") if ".part" in path.name]
    for path in place.rglob("*.ckpt"):
        load_checkpoint(path)


@pytest.mark.parametrize("logger", ["none", "mlflow"])
def test_a_disk_that_fills_up_while_training(
    small_disk: Path, tmp_path: Path, logger: str, long_form: bool, record_fault: FaultRecorder
) -> None:
    if not long_form:
        pytest.skip("in the long form (--long)")
    words = [f"logger={logger}", "trainer.max_epochs=30"]
    if logger == "mlflow":
        # The store is elsewhere; the run, its journal and its checkpoints are on the full disk.
        words.append(f"logger.tracking_uri=sqlite:///{tmp_path}/mlflow.db")
    process = start(small_disk, *words)
    checkpoint = wait_for(process, small_disk, "experiments/runs/*/*/checkpoints/last.ckpt")
    filler = fill(small_disk)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1, error
    assert "Traceback (most" not in error and "Logging error" not in error
    assert "No space left on device" in error and "resume=auto" in error
    assert_nothing_corrupt(small_disk)
    kept = load_checkpoint(checkpoint)["global_step"]
    assert kept > 0
    filler.unlink()
    resumed = start(small_disk, *words, "resume=auto")
    _, error = resumed.communicate(timeout=200)
    assert resumed.returncode == 0, error
    assert_nothing_corrupt(small_disk)
    (result,) = [RunResult.read(path) for path in small_disk.glob("experiments/runs/*/*/result.json")]
    lost = 0
    if logger == "mlflow":
        assert drain(small_disk / "experiments", 60)
        (record,) = Store(f"sqlite:///{tmp_path}/mlflow.db", small_disk / "experiments").runs()
        assert record.status == "FINISHED"
        lost = len({step for step, _ in result.history["train/loss"]} ^ set(range(1, 31)))
    assert [step for step, _ in result.history["train/loss"]] == list(range(1, 31))
    record_fault(f"disk full while training (logger={logger})", 1, 1, lost)


def test_a_checkpoint_larger_than_a_file_may_be(tmp_path: Path, record_fault: FaultRecorder) -> None:
    """Without a file system of one's own: the system refuses to let files grow beyond a limit."""
    (tmp_path / "place").mkdir()
    process = start(
        tmp_path / "place", "logger=none", "model.hidden_units=[512]", "trainer.max_epochs=2", limit=200_000
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback (most" not in error
    assert "cannot write the checkpoint: File too large" in error
    assert_nothing_corrupt(tmp_path)
    record_fault("checkpoint cannot be written", 1, 1, 0)


def test_the_checkpoint_before_it_stays_whole(small_disk: Path) -> None:
    path = small_disk / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    for count in (1_600_000, 10_000_000):
        with pytest.raises(OSError, match="cannot write the checkpoint: No space left on device"):
            AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(count)}}, path)
        assert [file.name for file in small_disk.iterdir()] == ["last.ckpt"]
        assert load_checkpoint(path)["state_dict"]["w"].tolist() == [1, 1, 1]
