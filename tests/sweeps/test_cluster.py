"""What docs/cluster.md promises of SLURM, at length (`--long`): twenty trials through kills and preemption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres
import psutil
import pytest
import toy_sweeps as toy
from optuna.trial import FrozenTrial, TrialState
from postgres import wait_for
from slurm_cluster import Cluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

EPOCHS = 6
STOP = 3
PACED = """
import time
from pathlib import Path

import pytorch_lightning as pl


class Paced(pl.Callback):
    # Notes each epoch that begins, and waits in the middle of a trial until it may go on, or is told to save.
    def __init__(self, place, stop):
        super().__init__()
        self.place, self.stop = Path(place), stop

    def on_train_epoch_start(self, trainer, pl_module):
        trial = Path(trainer.default_root_dir).name
        with (self.place / "epochs").open("a") as file:
            file.write(f"{trial} {trainer.current_epoch}\\n")
        if trainer.current_epoch != self.stop:
            return
        [signals] = [callback for callback in trainer.callbacks if hasattr(callback, "requeues")]
        passes = [self.place / "all", self.place / trial]
        while signals.exit_code is None and not any(path.exists() for path in passes):
            time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def _at_length(long_form: bool) -> None:
    if not long_form:
        pytest.skip("runs in the long form alone (make test-faults)")


@pytest.fixture
def mlflow_server(tmp_path: Path, serve_mlflow: Callable[[Path], Any]) -> Iterator[str]:
    """A server of its own: all runs on it are counted."""
    with serve_mlflow(tmp_path) as address:
        yield address


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_twenty_trials_with_four_workers_killed_and_two_preempted(
    tmp_path: Path, cluster: Cluster, postgresql: postgres.Server, mlflow_server: str, record_fault: Any
) -> None:
    (tmp_path / "pacing.py").write_text(PACED, encoding="utf-8")
    place = tmp_path / "paced"
    place.mkdir()
    command = [sys.executable, "-m", "pipeline", "--allow", "pacing.Paced", "-m", "+experiment=digits_linear"]
    command += [
        "+sweep=linear",
        f"trainer.max_epochs={EPOCHS}",
        "callbacks.early_stopping.patience=null",
        "checkpoint.every_seconds=0",
        f"+callbacks.pace={{_target_:pacing.Paced,place:{place},stop:{STOP}}}",
        *("hydra.sweeper.n_trials=20", "hydra.sweeper.n_jobs=4", "hydra/sweeper/pruner=none"),
        *("hydra.sweeper.study_name=wide", "hydra.sweeper.storage=${oc.env:PIPELINE_STORAGE}"),
        *("hydra/launcher=slurm", "hydra.launcher.timeout_min=30", f"paths.experiments_dir={tmp_path}"),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PIPELINE_STORAGE": postgresql.url,
        "MLFLOW_TRACKING_URI": mlflow_server,
        "OMP_NUM_THREADS": "1",
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)

    def held() -> list[FrozenTrial]:
        """The trials that wait in their middle."""
        begun = set((place / "epochs").read_text().splitlines()) if (place / "epochs").exists() else set()
        return [
            trial
            for trial in toy.trials(postgresql.url, "wide")
            if trial.state == TrialState.RUNNING
            and f"{trial.number} {STOP}" in begun
            and not (place / str(trial.number)).exists()
        ]

    def goes_on(before: list[FrozenTrial]) -> None:
        """Wait until other workers have these trials, and let them pass."""

        def taken(was: FrozenTrial) -> bool:
            now = toy.trials(postgresql.url, "wide")[was.number]
            # One that was told to save begins within the epoch again, where nothing holds it.
            return now.state != TrialState.WAITING and _owner(now) != _owner(was)

        wait_for(lambda: all(map(taken, before)), 300)
        for trial in before:
            (place / str(trial.number)).touch()

    def kill(victim: FrozenTrial) -> FrozenTrial:
        os.kill(_owner(victim)["pid"], signal.SIGKILL)
        return victim

    submitting = start()
    wait_for(lambda: len(held()) == 4, 300)
    for _ in range(2):
        goes_on([kill(held()[0])])
    wait_for(lambda: len(held()) >= 2, 300)
    submitting.kill()
    submitting.wait()
    victim = kill(held()[0])
    submitting = start()
    goes_on([victim])
    # Both workers of a node are to make room for a job that matters more, and go on after it.
    wait_for(lambda: len(held()) == 4, 300)
    moved = [
        trial for trial in held() if psutil.Process(_owner(trial)["pid"]).environ()["SLURMD_NODENAME"] == "n1"
    ]
    assert len(moved) == 2
    cluster.output("sbatch", "-p", "urgent", "-w", "n1", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 2")
    goes_on(moved)
    wait_for(lambda: bool(held()), 300)
    victim = kill(held()[0])
    goes_on([victim])
    (place / "all").touch()
    assert submitting.wait(600) == 0

    assert [(one.number, one.state) for one in toy.trials(postgresql.url, "wide")] == [
        (number, TrialState.COMPLETE) for number in range(20)
    ]
    # Only the epochs in whose middle workers were killed began twice.
    epochs = Counter((place / "epochs").read_text().splitlines())
    assert len(epochs) == 20 * EPOCHS
    twice = sorted(name.split()[1] for name, times in epochs.items() if times > 1)
    assert twice == [str(STOP)] * 4 and max(epochs.values()) == 2

    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.info.status for run in nested} == {"FINISHED"} and len(nested) == 20
    assert [run.info.status for run in runs if run not in nested] == ["FINISHED"]
    record_fault("worker on SLURM killed or preempted while training", 6, 6, 0)


def _owner(trial: FrozenTrial) -> Any:
    return (trial.system_attrs.get("sweep:claim") or {}).get("owner")
