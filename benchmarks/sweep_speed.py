"""Sweeps of real MNIST, as a user starts them: ``python -m benchmarks.sweep_speed [--only NAME]``.

Every time is that of the whole command, from start to exit, in a fresh experiments directory with tracking on. The
data has to be on PIPELINE_DATA_PATH or in ``data/``.

eight    eight fixed settings (conf/sweep/eight.yaml), two epochs each, one process
hand     the training of those eight alone, in a hand-written loop
start    what a trial takes beside its fit, from the same sweep: the second trial on
pruning  40 trials of up to 10 epochs with the default pruner, and the same without
workers  16 trials of 10 epochs with two worker processes, and with one
kills    12 trials with two workers, of which one is killed with SIGKILL three times
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def command(directory: Path, *words: str) -> list[str]:
    """A command of the pipeline that leaves everything in ``directory``."""
    return [sys.executable, "-m", "pipeline", *words, f"paths.experiments_dir={directory}"]


def timed(words: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def trials(directory: Path) -> list[dict[str, Any]]:
    """The trials of the one sweep in ``directory``."""
    [file] = directory.glob("sweeps/*/*/trials.yaml")
    rows: list[dict[str, Any]] = yaml.safe_load(file.read_text())
    return rows


def best(directory: Path) -> float:
    """The sweep's best value."""
    [file] = directory.glob("sweeps/*/*/optimization_results.yaml")
    return float(yaml.safe_load(file.read_text())["best_value"])


def fresh() -> Path:
    """A new experiments directory."""
    return Path(tempfile.mkdtemp(prefix="sweep-"))


def eight(repetitions: int) -> None:
    """Eight fixed settings, and what each trial takes beside its fit."""
    words = ["--config-dir", str(HERE / "conf"), "+experiment=mnist_mlp", "+sweep=eight"]
    starts, seconds = [], []
    for _ in range(repetitions):
        directory = fresh()
        seconds.append(timed(command(directory, *words)))
        for row in trials(directory)[1:]:
            fit = json.loads((Path(row["directory"]) / "result.json").read_text())["seconds"]["fit"]
            starts.append(row["seconds"] - fit)
    print(f"eight    {statistics.median(seconds):6.1f} s   {_all(seconds)}")
    print(f"start    {statistics.median(starts):6.2f} s   a trial beside its fit, the second trial on")


def hand(repetitions: int) -> None:
    """The training of the eight in a hand-written loop: with the pipeline's form of Adam and with PyTorch's default."""
    from benchmarks.fit import by_hand
    from pipeline.config import compose

    settings = yaml.safe_load((HERE / "conf" / "sweep" / "eight.yaml").read_text())["hydra"]["sweeper"]
    samples = 2 * 55_000
    for extra in ([], ["+optimizer.fused=false"]):
        loops = []
        for trial in settings["seed_trials"]:
            overrides = [f"{key}={value}".replace(" ", "") for key, value in trial.items()]
            loops.append(
                by_hand(compose(["+experiment=mnist_mlp", "trainer.max_epochs=2", *overrides, *extra]))
            )
        seconds = [sum(samples / loop() for loop in loops) for _ in range(repetitions)]
        print(f"hand     {statistics.median(seconds):6.1f} s   {_all(seconds)} {''.join(extra)}")


def pruning(repetitions: int) -> None:
    """The default pruner against none."""
    words = ["+experiment=mnist_mlp", "+sweep=mlp", "trainer.max_epochs=10", "hydra.sweeper.n_trials=40"]
    rows: dict[str, list[tuple[float, float]]] = {"auto": [], "none": []}
    for seed in range(repetitions):
        for name, found in rows.items():
            directory = fresh()
            choice = [] if name == "auto" else ["hydra/sweeper/pruner=none"]
            found.append((timed(command(directory, *words, *choice, f"seed={seed}")), best(directory)))
    for name, found in rows.items():
        print(
            f"pruning  {name}: {_all([s for s, _ in found])}   best {', '.join(f'{v:.4f}' for _, v in found)}"
        )
    pairs = zip(rows["auto"], rows["none"], strict=True)
    print(
        f"pruning  ratio of times {statistics.median(with_[0] / without[0] for with_, without in pairs):.2f}"
    )


def workers(repetitions: int) -> None:
    """Two worker processes against one."""
    words = ["+experiment=mnist_mlp", "+sweep=mlp", "trainer.max_epochs=10", "hydra.sweeper.n_trials=16"]
    words += ["hydra/sweeper/pruner=none", "hydra/sweeper/sampler=random"]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repetitions):
        for jobs, found in seconds.items():
            found.append(timed(command(fresh(), *words, f"hydra.sweeper.n_jobs={jobs}")))
    ratio = statistics.median(two / one for one, two in zip(seconds[1], seconds[2], strict=True))
    print(f"workers  one {_all(seconds[1])}   two {_all(seconds[2])}   ratio {ratio:.2f}")


def kills(repetitions: int) -> None:
    """SIGKILL for a worker in mid-trial, three times in each sweep."""
    for _ in range(repetitions):
        directory = fresh()
        words = ["+experiment=mnist_mlp", "+sweep=mlp", "trainer.max_epochs=3", "hydra.sweeper.n_trials=12"]
        process = subprocess.Popen(
            command(directory, *words, "hydra.sweeper.n_jobs=2", "hydra/sweeper/pruner=none"),
            stdout=subprocess.DEVNULL,
        )
        killed: set[int] = set()
        while process.poll() is None:
            time.sleep(0.2)
            if len(killed) < 3 and (victim := _worker_in_mid_trial(directory, killed)):
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
        states = [row["state"] for row in trials(directory)]
        statuses = _run_statuses(directory)
        complete = f"{states.count('complete')} of {len(states)} trials complete"
        counted = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
        print(f"kills    {len(killed)} killed, exit code {process.returncode}, {complete}; runs: {counted}")


def _worker_in_mid_trial(directory: Path, killed: set[int]) -> int | None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        url = f"sqlite:///{directory / 'optuna.db'}"
        study = optuna.load_study(study_name=optuna.get_all_study_names(url)[0], storage=url)
        for trial in study.trials:
            if trial.state.name == "RUNNING" and trial.intermediate_values:
                pid = int(trial.system_attrs["sweep:claim"]["owner"]["pid"])
                if pid not in killed:
                    return pid
    except Exception:
        # The study is not there yet.
        pass
    return None


def _run_statuses(directory: Path) -> list[str]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [
        run.info.status for run in client.search_runs(experiments) if "mlflow.parentRunId" in run.data.tags
    ]


def _all(seconds: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds) + " s"


MEASUREMENTS: dict[str, Callable[[int], None]] = {
    "eight": eight,
    "hand": hand,
    "pruning": pruning,
    "workers": workers,
    "kills": kills,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(MEASUREMENTS))
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    for name, measure in MEASUREMENTS.items():
        if options.only in (None, name):
            measure(options.repetitions)


if __name__ == "__main__":
    main()
