"""Workers and runs on a real SLURM of two nodes: killed, preempted, left alone, and taken up again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import postgres
import psutil
import pytest
import toy_sweeps as toy
from optuna.trial import TrialState
from postgres import wait_for
from slurm_cluster import Cluster
from test_workers import SWEEP

from pipeline.__main__ import main
from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.sweeps.engines import Work, WorkersFailed, slurm
from pipeline.sweeps.engines.slurm import Slurm, SlurmWorkers
from pipeline.sweeps.storage import open_storage
from pipeline.training.signals import queue_again

LAUNCHER = {"timeout_min": 5, "cpus_per_task": 1}


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_sweep_survives_kills_preemption_and_the_end_of_its_own_command(
    tmp_path: Path, cluster: Cluster, postgresql: postgres.Server
) -> None:
    plan = toy.plan(tmp_path, n_trials=8, n_jobs=3, runner="toy_sweeps.seconds", launcher=LAUNCHER)
    (tmp_path / "plan.json").write_text(json.dumps(plan.as_dict()))
    command = [sys.executable, "-c", SWEEP, str(tmp_path / "plan.json"), postgresql.url]
    submitting = subprocess.Popen(command, start_new_session=True)

    def running() -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in toy.trials(postgresql.url) if trial.state == TrialState.RUNNING]

    wait_for(lambda: len(running()) >= 2)
    # The command is killed, and its workers go on; one of those too, and another is to make room.
    submitting.kill()
    submitting.wait()
    first = running()[0]
    os.kill(first.system_attrs["sweep:claim"]["owner"]["pid"], signal.SIGKILL)
    states = cluster.output("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").split()
    cluster.output("scancel", "--signal=USR1", "-b", states[-1])
    again = subprocess.run(command, timeout=200, check=False)
    assert again.returncode == 0
    study = optuna.load_study(study_name="toy", storage=open_storage(postgresql.url))
    assert [trial.number for trial in study.trials] == list(range(8))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert (tmp_path / "sweep" / "trials.yaml").exists()
    wait_for(lambda: not cluster.output("squeue", "-h"))
    logs = "".join(path.read_text() for path in (tmp_path / "sweep" / "workers").glob("slurm-*.log"))
    assert "Traceback" not in logs, logs


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_single_run_goes_on_after_its_time_limit(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "+experiment=digits_linear",
        "trainer.max_epochs=100",
        "logger=none",
        "checkpoint.every_seconds=0",
    ]
    words += ["callbacks.early_stopping.patience=null", f"paths.experiments_dir={tmp_path}"]
    assert main([*words, "hydra/launcher=slurm", "hydra.launcher.timeout_min=5"]) == 0
    assert "SLURM's job" in capsys.readouterr().out
    wait_for(lambda: bool(list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))))
    # What SLURM sends before the limit.
    [job] = cluster.output("squeue", "-h", "-o", "%i").split()
    cluster.output("scancel", "--signal=USR1", "-b", job)
    wait_for(lambda: bool(list(tmp_path.glob("runs/*/*/result.json"))), 120)
    [directory] = tmp_path.glob("runs/*/*")
    result = json.loads((directory / "result.json").read_text())
    assert [epoch for epoch, _ in result["history"]["train/loss"]] == list(range(1, 101))
    log = (tmp_path / "slurm" / f"{job}.log").read_text()
    assert "Traceback" not in log and "srun" not in log, log


def test_the_script_asks_for_what_the_settings_say() -> None:
    settings = {
        "_target_": "pipeline.sweeps.engines.slurm.Slurm",
        "partition": "gpu",
        "timeout_min": 240,
        "gpus_per_node": 1,
        "mem_gb": 1.5,
        "signal_delay_s": 30,
        "setup": ["module load cuda"],
        "additional_parameters": {"exclusive": True, "reservation": "mine"},
    }
    script = Slurm.read(settings).script(
        "name", Path("/logs/%j.log"), ["python", "-c", "print('a b')"], array=64
    )
    options = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert options >= {
        *("array=0-63", "partition=gpu", "time=240", "gpus-per-node=1", "mem=1536M", "signal=B:USR1@30"),
        *("requeue", "exclusive", "reservation=mine", "cpus-per-task=1"),
    }
    assert not [option for option in options if option.startswith(("qos", "account", "constraint"))]
    assert script.index("module load cuda") < script.index("python -c")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def workers(tmp_path: Path, finished: int = 0) -> SlurmWorkers:
    work = Work("toy", "sqlite:///x", tmp_path, lambda: 3, lambda: 0, lambda: finished, lambda: None)
    return SlurmWorkers(Slurm(), work)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of SLURM's commands, of which `sbatch` notes how many workers it was asked for."""
    folder = tmp_path / "bin"
    program(folder, "sbatch", f"grep -o 'array=.*' >> {tmp_path}/told; echo 7")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_LOOK_SECONDS", 0.0)
    return folder


@pytest.mark.parametrize("squeue", ["echo away >&2; exit 1", "exec sleep 30"])
def test_a_controller_that_is_away_ends_nothing(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch, squeue: str
) -> None:
    watched = workers(tmp_path)
    program(commands, "squeue", squeue)
    with monkeypatch.context() as impatient:
        impatient.setattr(slurm, "_COMMAND_SECONDS", 0.3)
        assert [watched.look(), watched.look()] == [True, True]
        with pytest.raises(UserError, match="SLURM does not answer"):
            watched.start()
    assert not (tmp_path / "told").exists()
    program(commands, "squeue", "echo RUNNING")
    assert watched.look()
    assert (tmp_path / "told").read_text() == "array=0-1\n"


def test_trials_of_workers_that_are_gone_are_looked_for_while_others_wait_in_their_place(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    work = Work("toy", "url", tmp_path, lambda: 2, lambda: 1, lambda: 0, lambda: looked.append("lost"))
    watched = SlurmWorkers(Slurm(), work)
    program(commands, "squeue", "echo RUNNING PENDING")
    assert watched.look() and watched.look()
    assert len(looked) == 1
    monkeypatch.setattr(slurm, "LOST_SECONDS", 0.0)
    assert watched.look()
    assert len(looked) == 2


def test_workers_that_die_are_given_up_when_none_is_left(tmp_path: Path, commands: Path) -> None:
    watched = workers(tmp_path)
    program(commands, "squeue", "echo RUNNING PENDING")
    for _ in range(5):
        assert watched.look()
    assert (tmp_path / "told").read_text() == "array=0-0\n" * 3
    program(commands, "squeue", "true")
    with pytest.raises(WorkersFailed):
        watched.look()


@pytest.mark.parametrize(
    ("given", "job"),
    [({}, "7"), ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7_2")],
    ids=["job", "task of an array"],
)
def test_what_is_queued_again_is_the_task_alone(
    tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], job: str
) -> None:
    """A task of an array may have the array's own number, which SLURM takes for all of them."""
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    for name, value in {"SLURM_JOB_ID": "7", **given}.items():
        monkeypatch.setenv(name, value)
    program(commands, "scontrol", f'echo "$@" >> {tmp_path}/told')
    program(commands, "squeue", f'echo "$@" >> {tmp_path}/asked; echo RUNNING')
    script = Slurm().script(
        "name", tmp_path / "log", ["sh", "-c", "sleep 1; kill -USR1 $PPID; exec sleep 30"]
    )
    assert subprocess.run(["bash", "-c", script], timeout=20, check=False).returncode == 143
    queue_again()
    assert (tmp_path / "told").read_text() == f"requeue {job}\n" * 2
    assert (tmp_path / "asked").read_text() == f"-h -j {job} -o %T\n"


SMALL = ["experiment=digits_mlp", "model.hidden_units=[16]", "model.batch_norm=false", "model.dropout=0"]
SMALL += ["data.train_samples=320", "data.validation_fraction=0.2", "logger=none"]


def on_two_nodes(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    command = [
        "srun",
        "-N2",
        "--ntasks-per-node=1",
        sys.executable,
        "-m",
        "pipeline",
        *SMALL,
        "trainer=ddp_cpu",
    ]
    command += ["trainer.devices=1", "trainer.num_nodes=2", "data.batch_size=16", *words]
    return subprocess.Popen(
        [*command, f"paths.experiments_dir={tmp_path}"],
        cwd=tmp_path,
        # Both nodes are this machine, and nobody knows them by name.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_srun_trains_on_two_nodes_as_one_run(tmp_path: Path, cluster: Cluster) -> None:
    training = on_two_nodes(tmp_path, "trainer.max_epochs=2")
    said, _ = training.communicate(timeout=300)
    assert training.returncode == 0, said
    [directory] = tmp_path.glob("runs/digits_mlp/*")
    assert said.count("test accuracy") == 1
    assert len(RunResult.read(directory).history["train/loss"]) == 2


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_training_on_two_nodes_goes_on_when_one_was_lost(
    tmp_path: Path, cluster: Cluster, long_form: bool
) -> None:
    if not long_form:
        pytest.skip("runs in the long form alone (make test-faults)")
    words = ["trainer.max_epochs=20", "checkpoint.every_seconds=0", "resume=auto"]
    training = on_two_nodes(tmp_path, *words)
    assert training.stdout is not None
    # Not each epoch is said where they follow fast.
    assert any(re.match(r"epoch ([3-9]|1[0-6])/", line) for line in training.stdout)
    [lost] = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"paths.experiments_dir={tmp_path}" in (process.info["cmdline"] or [])
        and "srun" not in process.info["cmdline"][0]
        and process.environ().get("SLURM_PROCID") == "1"
    ]
    lost.kill()
    began = time.monotonic()
    said, _ = training.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert training.returncode != 0
    assert "task 1" in said, said
    [directory] = tmp_path.glob("runs/digits_mlp/*")
    assert not (directory / "result.json").exists()

    again = on_two_nodes(tmp_path, *words)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert list(tmp_path.glob("runs/digits_mlp/*")) == [directory]
    assert said.count("test accuracy") == 1
    together = RunResult.read(directory)
    print(f"test accuracy of two nodes: {together.metrics['test/accuracy']}")
    assert [epoch for epoch, _ in together.history["train/loss"]] == list(range(1, 21))

    # As good as one process with twice the batch.
    cfg = compose([*SMALL, "trainer=cpu", "trainer.max_epochs=20", "data.batch_size=32"])
    alone = train(cfg, Hooks(directory=tmp_path / "alone", reports=False))
    assert together.metrics["train/loss"] == pytest.approx(alone.metrics["train/loss"], rel=1e-3)
    assert together.metrics["test/accuracy"] == pytest.approx(
        alone.metrics["test/accuracy"], abs=1 / 360 + 1e-6
    )
