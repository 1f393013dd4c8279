"""Sweeps from the command line: real training on the embedded digits, tracked in MLflow, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.types import RunMode
from optuna.trial import TrialState

from pipeline.__main__ import main
from pipeline.config import compose
from pipeline.config.loading import loader
from pipeline.sweeps.space import own_settings, read_space
from pipeline.tracking import sync

FAST = ["trainer.max_epochs=2", "data.batch_size=256"]
CLASSIFIER = "+experiment=digits_linear"


def store(directory: Path) -> str:
    return f"paths.experiments_dir={directory}"


def study(directory: Path, name: str | None = None) -> optuna.Study:
    url = f"sqlite:///{directory / 'optuna.db'}"
    names = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name or names[0], storage=url)


def runs(directory: Path) -> list[Any]:
    """What MLflow has, once everything that was recorded has reached it."""
    import mlflow

    deadline = time.monotonic() + 200
    while sync(directory).running and time.monotonic() < deadline:
        # A sender is still at it.
        time.sleep(0.1)
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def sweep_directory(directory: Path) -> Path:
    [found] = (directory / "sweeps").glob("*/*")
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, with_store: Callable[[Path], Path]) -> Path:
    """A finished sweep of three trials, in processes of its own as a user starts it."""
    directory = with_store(tmp_path_factory.mktemp("swept"))
    command = [sys.executable, "-m", "pipeline", CLASSIFIER, "+sweep=linear", *FAST, store(directory)]
    done = subprocess.run(
        [*command, "hydra.sweeper.n_trials=3"], capture_output=True, text=True, cwd=directory
    )
    assert done.returncode == 0, done.stderr
    (directory / "output.txt").write_text(done.stdout)
    return directory


def test_a_sweep_needs_no_flag_and_leaves_its_files(swept: Path) -> None:
    found = study(swept)
    assert [trial.number for trial in found.trials] == [0, 1, 2]
    assert {trial.state for trial in found.trials} == {TrialState.COMPLETE}
    assert found.direction.name == "MAXIMIZE"
    directory = sweep_directory(swept)
    results = yaml.safe_load((directory / "optimization_results.yaml").read_text())
    assert results["best_value"] == max(trial.value for trial in found.trials)
    pictures = {path.stem for path in (directory / "plots").glob("*.png")}
    assert {"history", "slice", "parallel_coordinates", "contour", "intermediate_values", "edf"} <= pictures
    assert "plotly" in (directory / "plots" / "study.html").read_text()


def test_trial_zero_is_the_experiment_itself_and_no_trial_sees_the_test_split(swept: Path) -> None:
    first = study(swept).trials[0]
    experiment = compose([CLASSIFIER, *FAST])
    assert first.params["optimizer.lr"] == experiment.optimizer.lr
    assert first.params["model.dropout"] == experiment.model.dropout
    for number in range(3):
        result = json.loads((sweep_directory(swept) / str(number) / "result.json").read_text())
        assert not [name for name in result["metrics"] if name.startswith("test/")]


def test_the_summary_names_winner_baseline_and_default_settings(swept: Path) -> None:
    text = (swept / "output.txt").read_text()
    best = study(swept).best_trial
    assert f"best (trial {best.number})" in text
    assert "baseline" in text
    assert "default settings (trial 0)" in text
    assert f"--config-dir {sweep_directory(swept)} +experiment=best" in text


def test_mlflow_has_a_parent_with_the_best_value_and_a_nested_run_for_each_trial(swept: Path) -> None:
    found = runs(swept)
    [parent] = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == len(found) - 1 == 3
    assert {run.info.status for run in found} == {"FINISHED"}
    assert parent.data.metrics["best/val/accuracy"] == study(swept).best_value
    assert parent.data.metrics["trials/complete"] == 3
    for run in nested:
        number = int(run.data.tags["sweep.trial"])
        params = study(swept).trials[number].params
        assert float(run.data.params["optimizer.lr"]) == params["optimizer.lr"]
        assert run.data.metrics["val/accuracy"] == study(swept).trials[number].value


def test_the_winner_runs_again_from_best_yaml(swept: Path, tmp_path: Path) -> None:
    best = study(swept).best_trial
    directory = f"--config-dir={sweep_directory(swept)}"
    assert main([directory, "+experiment=best", "logger=none", f"hydra.run.dir={tmp_path}"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["val/accuracy"] == best.value
    assert "test/accuracy" in result["metrics"]


def test_the_same_command_again_goes_on_with_the_study(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [CLASSIFIER, "+sweep=linear", *FAST, store(swept)]
    assert main([*command, "hydra.sweeper.n_trials=4"]) == 0
    assert len(optuna.get_all_study_names(f"sqlite:///{swept / 'optuna.db'}")) == 1
    assert len(study(swept).trials) == 4
    assert "trial 0" not in "\n".join(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("trial")
    )
    assert len([run for run in runs(swept) if "mlflow.parentRunId" not in run.data.tags]) == 1
    name = study(swept).study_name
    code = main([*command, f"hydra.sweeper.study_name={name}", "trainer.max_epochs=3"])
    assert code == 2
    assert "trainer.max_epochs: 2 -> 3" in capsys.readouterr().err


def test_seeds_run_under_one_parent_and_a_failed_job_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "-m",
        CLASSIFIER,
        "seed=1,2",
        "trainer.max_epochs=1",
        "optimizer.lr=0.01,1e38",
        store(tmp_path),
    ]
    assert main(command) == 1
    output = capsys.readouterr().out
    assert "job 1 failed: diverged" in output
    found = study(tmp_path).trials
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL"]
    [good, bad] = yaml.safe_load((sweep_directory(tmp_path) / "multirun_results.yaml").read_text())
    values = [found[number].user_attrs["metrics"]["test/accuracy"] for number in (0, 2)]
    assert good["settings"] == {"optimizer.lr": "0.01"}
    assert good["mean"]["test/accuracy"] == pytest.approx(sum(values) / 2)
    assert good["std"]["test/accuracy"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert (bad["jobs"], bad["mean"]) == ([], {})
    nested = [run for run in runs(tmp_path) if "mlflow.parentRunId" in run.data.tags]
    assert sorted(run.info.status for run in nested) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


def test_a_sweep_of_folds_optimises_their_mean(tmp_path: Path) -> None:
    command = [
        "-m",
        CLASSIFIER,
        "hydra/sweeper=optuna",
        "data.folds=2",
        "trainer.max_epochs=1",
        "logger=none",
    ]
    assert main([*command, "optimizer.lr=choice(0.01,0.1)", "hydra.sweeper.n_trials=2", store(tmp_path)]) == 0
    for trial in study(tmp_path).trials:
        folds = sweep_directory(tmp_path).glob(f"{trial.number}/fold-*/result.json")
        accuracies = [json.loads(path.read_text())["metrics"]["val/accuracy"] for path in folds]
        assert len(accuracies) == 2
        assert trial.value == pytest.approx(sum(accuracies) / 2)
        assert list(trial.intermediate_values) == [0, 1]


def test_too_large_models_are_not_trained(tmp_path: Path) -> None:
    command = [
        "-m",
        "+experiment=digits_mlp",
        "hydra/sweeper=optuna",
        "trainer.max_epochs=1",
        store(tmp_path),
    ]
    command += ["model.hidden_units=choice([8],[512])", "hydra/sweeper/sampler=grid"]
    command += ["hydra.sweeper.max_parameters=5000"]
    assert main(command) == 0
    small, large = study(tmp_path).trials
    assert small.state == TrialState.COMPLETE
    assert "parameters, more than 5,000" in large.user_attrs["rejected"]
    assert len([run for run in runs(tmp_path) if "mlflow.parentRunId" in run.data.tags]) == 1


OPTUNA = ["-m", CLASSIFIER, "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)"]
REFUSED = {
    "a trainer that launches processes": ([*OPTUNA, "trainer=ddp_cpu"], "runs? the whole command again"),
    "the same among the choices": (
        ["-m", CLASSIFIER, "hydra/sweeper=optuna", "trainer=choice(cpu,ddp_cpu)"],
        "runs? the whole",
    ),
    "the same in a multirun": (
        ["-m", CLASSIFIER, "seed=1,2", "trainer=ddp_cpu"],
        "runs? the whole command again",
    ),
    "a test metric": ([*OPTUNA, "objective.metric=test/accuracy"], "test split is read once"),
    "a test metric of several": (
        [*OPTUNA, "hydra.sweeper.metrics=[test/accuracy]"],
        "test split is read once",
    ),
    "a metric of an unknown direction": ([*OPTUNA, "objective.metric=val/akkuracy"], "Did you mean accuracy"),
    "a space for another model": (["-m", CLASSIFIER, "+sweep=cnn"], "made for model=cnn.*is linear"),
    "a pruner with several objectives": (
        [*OPTUNA, "hydra.sweeper.metrics=[val/accuracy,parameters]", "hydra/sweeper/pruner=median"],
        "nothing can be pruned",
    ),
    "directions without metrics": (
        [*OPTUNA, "hydra.sweeper.direction=[minimize,maximize]"],
        "2 directions for 1",
    ),
    "nothing to vary": (["-m", CLASSIFIER, "hydra/sweeper=optuna"], "nothing to vary"),
    "an interval in a multirun": (["-m", CLASSIFIER, "optimizer.lr=interval(0.1,1)"], "hydra/sweeper=optuna"),
    "a password": ([*OPTUNA, "hydra.sweeper.storage=postgresql://me:pw@db/x"], "environment variable"),
    "an unknown sampler": ([*OPTUNA, "hydra.sweeper.sampler=tpee"], "tpe"),
    "resume": ([*OPTUNA, "resume=auto"], "goes on by itself"),
    "an unknown seed trial": (
        [*OPTUNA, "hydra.sweeper.seed_trials=[{optimizer.rl: 1}]"],
        "Did you mean optimizer.lr",
    ),
    "a seed trial outside": ([*OPTUNA, "hydra.sweeper.seed_trials=[{optimizer.lr: 1}]"], "not in interval"),
    "a function that was not allowed": (
        [*OPTUNA, "hydra.sweeper.custom_search_space=os.system"],
        "os.system is not on the list",
    ),
    "too short a grace": ([*OPTUNA, "hydra.sweeper.grace=5"], "at least 15"),
    "another's launcher": ([*OPTUNA, "hydra/launcher=submitit_slurm"], "use hydra/launcher=slurm"),
    "another's launcher for Ray": ([*OPTUNA, "hydra/launcher=ray_aws"], "use hydra/launcher=ray"),
    "Ray with files of this machine": (
        [*OPTUNA, "hydra/launcher=ray", "hydra.launcher.num_gpus=1"],
        r"hydra\.sweeper\.storage=postgresql",
    ),
    "half a core less than none": (
        [*OPTUNA, "hydra/launcher=ray", "hydra.launcher.num_cpus=-1"],
        "num_cpus=-1",
    ),
    **{
        f"Ray asked for {word}": ([*OPTUNA, "hydra/launcher=ray", word], expected)
        for word, expected in {
            "hydra.launcher.num_gpus=1.5": r"num_gpus=1\.5: expected a fraction from 0 to 1, or a whole number",
            "hydra.launcher.resources=abc": "resources=abc: expected positive numbers by the cluster's own names",
            "+hydra.launcher.resources.CPU=1": r"resources=.*CPU.*expected positive numbers .* num_cpus",
            "+hydra.launcher.resources.TPU=x": r"resources=.*TPU.*expected positive numbers",
        }.items()
    },
    "a launcher for this machine": ([*OPTUNA, "hydra/launcher=joblib"], r"use hydra\.sweeper\.n_jobs"),
    "files of this machine": (
        [*OPTUNA, "hydra/launcher=slurm", "logger.mlflow=true"],
        r"hydra\.sweeper\.storage=postgresql.* and logger\.tracking_uri=http",
    ),
    "a limit of no time": (
        [*OPTUNA, "hydra/launcher=slurm", "hydra.launcher.timeout_min=0"],
        "timeout_min=0",
    ),
    "a partition that is none": (
        [*OPTUNA, "hydra/launcher=slurm", "hydra.launcher.partition='a b'"],
        "hydra.launcher.partition",
    ),
    "another task": ([*OPTUNA, "task=explore"], "task=train"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_trial(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = REFUSED[case]
    assert main(["logger=none", *words, store(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.DOTALL), error
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "lstm", "gru", "rnn"])
def test_every_space_contains_its_models_own_settings(name: str) -> None:
    words = ["data=digits", f"model={name}", f"sweep={name}"]
    config = loader(None).load_configuration("config", words, RunMode.MULTIRUN)
    found = read_space(config.hydra.sweeper.params, [])
    assert own_settings(found, config)[1] == []
    assert config.hydra.sweeper.fits_model == name


BLOCKING = """
import os
import time
from pathlib import Path

import pytorch_lightning as pl


class BlockOnce(pl.Callback):
    # Notes each epoch that begins. The first process that comes to the third says which it is, and waits to be killed;
    # the others go on.
    def __init__(self, place):
        super().__init__()
        self.place = Path(place)

    def on_train_epoch_start(self, trainer, pl_module):
        with self.place.with_name("epochs").open("a") as file:
            file.write(f"{trainer.default_root_dir} {trainer.current_epoch}\\n")
        if trainer.current_epoch != 2:
            return
        draft = self.place.with_name(f"{self.place.name}-{os.getpid()}")
        draft.write_text(str(os.getpid()))
        try:
            os.link(draft, self.place)
        except FileExistsError:
            return
        while True:
            time.sleep(1)
"""


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_workers_leave_no_run_running_in_mlflow(
    tmp_path: Path, record_fault: Any, with_store: Callable[[Path], Path]
) -> None:
    with_store(tmp_path)
    (tmp_path / "blocking.py").write_text(BLOCKING, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pipeline", "--allow", "blocking.BlockOnce", "-m", CLASSIFIER]
    settings = [
        "+sweep=linear",
        "trainer.max_epochs=4",
        "checkpoint.every_seconds=0",
        f"+callbacks.block={{_target_:blocking.BlockOnce,place:{tmp_path / 'victim'}}}",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.n_jobs=2",
        "hydra/sweeper/pruner=none",
        store(tmp_path),
    ]
    process = subprocess.Popen([*command, *settings], stdout=subprocess.DEVNULL, env=environment)
    os.kill(_blocked_worker(tmp_path / "victim"), signal.SIGKILL)
    assert process.wait(200) == 0
    found = study(tmp_path).trials
    assert [(trial.number, trial.state.name) for trial in found] == [
        (number, "COMPLETE") for number in range(3)
    ]
    nested = [run for run in runs(tmp_path) if "mlflow.parentRunId" in run.data.tags]
    finished = [run.data.tags["sweep.trial"] for run in nested if run.info.status == "FINISHED"]
    assert sorted(finished) == ["0", "1", "2"] and len(nested) == 3
    # The killed trial went on from its last checkpoint: only the epoch that it was killed in began twice.
    epochs = Counter((tmp_path / "epochs").read_text().split("\n")[:-1])
    assert len(epochs) == 3 * 4 and sorted(epochs.values()) == [1] * 11 + [2]
    assert epochs.most_common(1)[0][0].endswith(" 2")
    assert all(list(trial.intermediate_values) == [0, 1, 2, 3] for trial in found)
    record_fault("worker of a tracked sweep killed while training", 1, 1, 3 - len(finished))


def _blocked_worker(place: Path) -> int:
    """The process that blocks for ever, once there is one."""
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        if place.is_file():
            return int(place.read_text())
        time.sleep(0.1)
    raise AssertionError("no trial began")
