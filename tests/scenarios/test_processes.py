"""Whole commands in processes of their own: signals, failures, two processes that train together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.runs.result import RunResult
from pipeline.tracking import drain
from pipeline.tracking.queries import RunRecord, Store
from pipeline.training.checkpoints import load_checkpoint

Start = Callable[..., "subprocess.Popen[str]"]
SMALL = ["experiment=digits_mlp", "model.hidden_units=[16]"]
# Batch statistics and dropout differ between two halves of a batch and the whole of it; all else must not. The 1,152
# training samples are whole batches of 32: a last one of an odd size would be filled up for two processes.
SAME_FOR_HALVES = [
    *("model.batch_norm=false", "model.dropout=0"),
    *("data.train_samples=1200", "data.validation_fraction=0.04"),
]
FAILS_ON_RANK_1 = """
import os
import pytorch_lightning as pl


class Fails(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == trainer.world_size - 1:
            raise RuntimeError("one process fails")
"""


@pytest.fixture
def start(tmp_path: Path, with_store: Callable[[Path], Path]) -> Iterator[Start]:
    """Start a command in a directory of its own; what is left of it at the end is killed."""
    with_store(tmp_path / "experiments")
    started: list[subprocess.Popen[str]] = []
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))

    def command(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield command
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def only_record(tmp_path: Path) -> RunRecord:
    assert drain(tmp_path / "experiments", 60)
    (record,) = Store(None, tmp_path / "experiments").runs()
    return record


def wait_for_epochs(process: subprocess.Popen[str], count: int) -> None:
    """Until so many lines of progress have come."""
    assert process.stderr is not None
    for line in process.stderr:
        count -= line.startswith("epoch ")
        if not count:
            return
    raise AssertionError(f"it ended: {process.wait()}")


@pytest.mark.slow
@pytest.mark.faults
def test_ctrl_c_keeps_the_state_and_the_run_goes_on_from_there(start: Start, tmp_path: Path) -> None:
    words = [*SMALL, "trainer.max_epochs=400", "callbacks.progress.refresh_seconds=0.01"]
    process = start(*words)
    wait_for_epochs(process, 2)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Traceback" not in output + error
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    assert (directory / "checkpoints/last.ckpt").is_file()
    assert (directory / "plots/learning_curves.png").stat().st_size > 1000
    assert json.loads((directory / "state.json").read_text())["status"] == "interrupted"
    record = only_record(tmp_path)
    assert record.status == "KILLED"
    assert "train/loss" in record.metrics

    # The same words with resume go on in the same directory and in the same tracked run.
    process = start(*words, "resume=auto")
    wait_for_epochs(process, 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=200)
    assert process.returncode == 143
    assert [path.name for path in (tmp_path / "experiments/runs/digits_mlp").iterdir()] == [directory.name]
    assert "resume" not in (directory / ".hydra/overrides.yaml").read_text()
    assert only_record(tmp_path).run_id == record.run_id


@pytest.mark.slow
def test_two_processes_are_one_run_as_good_as_one_with_twice_the_batch(start: Start, tmp_path: Path) -> None:
    process = start(*SMALL, *SAME_FOR_HALVES, "trainer=ddp_cpu", "trainer.max_epochs=6", "data.batch_size=16")
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    assert [path.name for path in (tmp_path / "experiments").rglob(".hydra")] == [".hydra"]
    assert output.count("test accuracy") == 1
    assert "Warning" not in error
    together = RunResult.read(directory)
    record = only_record(tmp_path)
    assert record.status == "FINISHED"
    assert record.metrics["test/accuracy"] == pytest.approx(together.metrics["test/accuracy"])

    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    words = [
        *SMALL,
        *SAME_FOR_HALVES,
        "trainer=cpu",
        "trainer.max_epochs=6",
        "data.batch_size=32",
        "logger=none",
    ]
    alone = train(compose(words), Hooks(directory=tmp_path / "alone", reports=False))
    assert together.metrics["test/accuracy"] == pytest.approx(alone.metrics["test/accuracy"], abs=0.03)
    assert together.metrics["train/loss"] == pytest.approx(alone.metrics["train/loss"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.faults
def test_a_process_that_fails_does_not_leave_the_others_hanging(start: Start, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILS_ON_RANK_1, encoding="utf-8")
    words = [
        "trainer=ddp_cpu",
        "trainer.max_epochs=50",
        "logger=none",
        "+callbacks.mine._target_=failing.Fails",
    ]
    process = start(*SMALL, *words, "--allow", "failing.Fails")
    began = time.monotonic()
    _, error = process.communicate(timeout=200)
    assert process.returncode != 0, error
    assert time.monotonic() - began < 190
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left
    assert not list(tmp_path.rglob("result.json"))


APART = """
import os
import signal
import time

import pytorch_lightning as pl
import torch


class Apart(pl.Callback):
    # Has the clock of rank 1 say otherwise than that of rank 0, epoch by epoch; then something happens to rank 1 alone.
    def __init__(self, then):
        super().__init__()
        self.then = then

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.current_epoch % 2:
            time.sleep(0.3)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.current_epoch == 5 and batch_idx == 1:
            if self.then == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            elif self.then == "diverge":
                with torch.no_grad():
                    next(pl_module.model.parameters()).fill_(float("nan"))
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(("then", "code"), [("signal", 143), ("diverge", 3)])
def test_what_one_of_two_processes_meets_ends_both_at_the_same_step(
    start: Start, tmp_path: Path, then: str, code: int
) -> None:
    """Their clocks differ on the way there: one that saved by its own would wait for the other for ever."""
    (tmp_path / "apart.py").write_text(APART, encoding="utf-8")
    words = [
        *("trainer=ddp_cpu", "trainer.max_epochs=50", "logger=none", "checkpoint.every_seconds=0.25"),
        *("callbacks.early_stopping.patience=null", f"+callbacks.mine={{_target_:apart.Apart,then:{then}}}"),
    ]
    process = start(*SMALL, *words, "--allow", "apart.Apart")
    _, error = process.communicate(timeout=150)
    assert process.returncode == code, error
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    saved = load_checkpoint(directory / "checkpoints/last.ckpt")
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    if then == "signal":
        # After two of the sixth epoch's batches.
        assert (saved["epoch"], saved["pipeline"]["batches_done"]) == (5, 2)
    else:
        assert re.search(r"became (nan|NaN).* \(epoch 6", error), error
        assert saved["epoch"] <= 5


@pytest.mark.slow
@pytest.mark.faults
def test_before_slurms_time_limit_the_state_is_saved_and_the_job_queued_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`#SBATCH --signal=USR1@120` and `resume=auto`; the `scontrol` of this test notes what it is told."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    slurm = {"JOB_ID": "7", "JOB_NAME": "mine", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    words = [*SMALL, "trainer=cpu", "trainer.max_epochs=40", "logger=none", "resume=auto"]
    process = start(*words)
    wait_for_epochs(process, 2)
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 143, error
    assert (tmp_path / "told").read_text() == "requeue 7\n"
    # Lightning's own checkpoint for this would be loaded instead of the best one.
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    assert (directory / "checkpoints/last.ckpt").is_file()
    assert "Warning" not in error and "srun" not in error


@pytest.mark.slow
def test_a_model_in_parts_is_saved_as_a_whole(start: Start, tmp_path: Path) -> None:
    """Half of it in each of two processes: stopped in the fourth epoch, gone on with, and read by one process."""
    words = [*SMALL, *SAME_FOR_HALVES, "trainer.max_epochs=12", "logger=none"]
    words += ["data.train_samples=320", "data.validation_fraction=0.2", "checkpoint.every_seconds=0"]
    parts = [*words, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=16"]
    process = start(*parts)
    wait_for_epochs(process, 3)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 143, error
    (directory,) = (tmp_path / "experiments/runs/digits_mlp").iterdir()
    stopped = load_checkpoint(directory / "checkpoints" / "last.ckpt")
    (state,) = stopped["optimizer_states"]
    shapes = {name: tensor.shape for name, tensor in stopped["state_dict"].items()}
    assert [one["exp_avg"].shape for one in state["state"].values()] == list(shapes.values())
    assert 2 <= stopped["epoch"] < 11
    process = start(*parts, "resume=auto")
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, output + error
    together = RunResult.read(directory)
    assert [epoch for epoch, _ in together.history["train/loss"]] == list(range(1, 13))

    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    one = compose([*words, "trainer=cpu", "data.batch_size=32"])
    alone = train(one, Hooks(directory=tmp_path / "alone", reports=False))
    assert together.metrics["train/loss"] == pytest.approx(alone.metrics["train/loss"], rel=1e-3)
    # The best epoch's file in one process: at this rate nothing is learnt, and the weights are tested as they are.
    best = directory / "checkpoints" / "best.ckpt"
    assert {name: tensor.shape for name, tensor in load_checkpoint(best)["state_dict"].items()} == shapes
    still = compose(
        [*words, "trainer=cpu", "trainer.max_epochs=1", "optimizer.lr=1e-12", f"ckpt_path={best}"]
    )
    again = train(still, Hooks(directory=tmp_path / "again", reports=False))
    assert again.metrics["test/loss"] == pytest.approx(together.metrics["test/loss"], rel=1e-6)
    assert again.metrics["test/accuracy"] == together.metrics["test/accuracy"]
