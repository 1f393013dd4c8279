"""What docs/cluster.md promises, at length (`--long`): twenty trials on SLURM through kills and preemption, how little
of its time a worker waits, and how fast a long queue is taken from.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import postgres
import psutil
import pytest
import toy_sweeps as toy
from optuna.trial import FrozenTrial, TrialState
from postgres import wait_for
from slurm_cluster import Cluster
from test_workers import SWEEP

from pipeline.sweeps.storage import open_storage

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


@pytest.mark.parametrize("cluster", [4], indirect=True)
def test_workers_hardly_wait(tmp_path: Path, cluster: Cluster, postgresql: postgres.Server) -> None:
    launcher = {"timeout_min": 30, "cpus_per_task": 1}
    plan = toy.plan(tmp_path, n_trials=64, n_jobs=8, runner="toy_sweeps.sleeping", launcher=launcher)
    (tmp_path / "plan.json").write_text(json.dumps(plan.as_dict()))
    command = [sys.executable, "-c", SWEEP, str(tmp_path / "plan.json"), postgresql.url]
    assert subprocess.run(command, timeout=600, check=False).returncode == 0
    trials = optuna.load_study(study_name="toy", storage=open_storage(postgresql.url)).trials
    by_worker: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        by_worker[_owner(trial)["pid"]].append(trial)
    assert len(by_worker) == 8
    spans = slept = between = 0.0
    for of_one in by_worker.values():
        ordered = sorted(of_one, key=lambda trial: trial.datetime_start)
        spans += (ordered[-1].datetime_complete - ordered[0].datetime_start).total_seconds()
        slept += sum(toy.seconds_to_sleep(trial.params["model.dropout"]) for trial in of_one)
        between += sum((b.datetime_start - a.datetime_complete).total_seconds() for a, b in pairwise(ordered))
    print(
        f"idle {1 - slept / spans:.2%}, between trials {between / spans:.2%}, load {os.getloadavg()[0]:.0f}"
    )
    assert 1 - slept / spans < 0.03


CLAIMING = """
import json
import sys
import threading
import time

from optuna.trial import TrialState

from pipeline.sweeps.storage import open_storage

url, study_id, total, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
taken = []


def claim():
    storage = open_storage(url)
    while True:
        began = time.time()
        found = storage.claim(study_id, total)
        if found is None:
            return
        taken.append((found.number, began, time.time() - began))
        storage.finish(found, TrialState.COMPLETE, [0.0])


workers = [threading.Thread(target=claim) for _ in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps(taken))
"""


def test_a_long_queue_is_taken_from_quickly(
    tmp_path: Path, postgresql: postgres.Server, record_property: Callable[[str, object], None]
) -> None:
    """64 workers, in four processes of 16 threads, with nothing to do but to take trials and to end them."""
    total = 10_000
    storage = open_storage(postgresql.url)
    study = optuna.create_study(storage=storage, study_name="long")
    study_id = storage.get_study_id_from_name(study.study_name)
    words = [sys.executable, "-c", CLAIMING, postgresql.url, str(study_id), str(total), "16"]
    began = time.time()
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = [one for process in processes for one in json.loads(process.communicate(timeout=800)[0])]
    assert sorted(number for number, _, _ in taken) == list(range(total))
    first = min(start for _, start, _ in taken)
    seconds = time.time() - first
    waits = sorted(wait for _, _, wait in taken)
    said = (
        f"{total / seconds:.0f} claims/s, median {waits[total // 2]:.3f} s, 99.9 % {waits[-total // 1000]:.3f} s, "
        f"longest {waits[-1]:.2f} s (from the first start {time.time() - began:.0f} s, load {os.getloadavg()[0]:.0f})"
    )
    print(said)
    record_property("claims", said)
    assert total / seconds >= 100
    assert waits[-1] <= 1.0
