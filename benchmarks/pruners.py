"""What pruners save and what they cost: ``python -m benchmarks.pruners [record] [replay] [real]``.

record  searches four experiments without a pruner, 64 trials each; a search that was cut off goes on
replay  lets Optuna's pruners end those trials in many orders, each from its recorded epochs, and prints the table: in
        which share of the orders the best value was kept (within 0.0005; of an error, that share of it), and the median
        share of the epochs that was saved
real    runs sweeps of 20 trials with the default pruner and without one, five seeds

Everything lies in ``--directory``. Trials compute with one thread. The table is read from PIPELINE_DATA_PATH.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import TrialState

TRIALS, TOLERANCE = 64, 0.0005
EXPERIMENTS: dict[str, list[str]] = {
    "digits_mlp": ["+experiment=digits_mlp", "+sweep=mlp"],
    "digits_cnn": ["+experiment=digits_cnn", "+sweep=cnn"],
    "cells_mlp": [
        "data=csv",
        "data.target=class",
        "model=mlp",
        "recipe=none",
        "trainer.max_epochs=30",
        "+sweep=mlp",
    ],
    "sales_forecast": ["+experiment=sales_forecast", "+sweep=mlp"],
}
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "default: percentile 66 from a tenth": lambda n: PercentilePruner(66.0, 5, math.ceil(0.1 * n)),
    "before: percentile 20 from the first epoch": lambda n: PercentilePruner(20.0, 5, 0),
    "percentile 50 from a tenth": lambda n: PercentilePruner(50.0, 5, math.ceil(0.1 * n)),
    "median from a third": lambda n: MedianPruner(5, math.ceil(n / 3)),
    "successive halving": lambda n: SuccessiveHalvingPruner(),
    "hyperband": lambda n: HyperbandPruner(min_resource=1, max_resource=n),
}


@dataclass
class Recorded:
    """A trial that ran to its end.

    Args:
        value: What it reached.
        curve: What it reported, epoch by epoch.
    """

    value: float
    curve: list[float]


def sweep(name: str, directory: Path, *words: str) -> list[str]:
    """The command of a sweep that leaves everything in a directory."""
    experiment = list(EXPERIMENTS[name])
    if name == "cells_mlp":
        from benchmarks.tables import directory as tables

        experiment += [f"data.path={tables() / 'cells' / 'train.csv'}", "name=cells_mlp"]
    return [
        *(sys.executable, "-m", "pipeline", *experiment, *words),
        *("logger=none", f"paths.experiments_dir={directory}"),
    ]


def run(words: Sequence[str]) -> None:
    """Run a command with one thread."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def read(directory: Path) -> tuple[bool, list[Recorded], int]:
    """Whether more is better, the trials that ran to their end by number, and the epochs of all trials."""
    from pipeline.sweeps.storage import open_storage

    storage = open_storage(f"sqlite:///{directory / 'optuna.db'}", 60.0)
    [study] = storage.get_all_studies()
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    found = [
        Recorded(
            float(t.value or 0.0), [t.intermediate_values[step] for step in sorted(t.intermediate_values)]
        )
        for t in whole
    ]
    epochs = sum(len(trial.intermediate_values) for trial in trials)
    return study.directions[0].name == "MAXIMIZE", found, epochs


def replay(trials: Sequence[Recorded], higher: bool, pruner: BasePruner) -> tuple[float, float]:
    """The best value of the trials that a pruner lets run to their end, and the share of the epochs that it saves."""
    study = optuna.create_study(direction="maximize" if higher else "minimize", pruner=pruner)
    done, whole = 0, []
    for recorded in trials:
        trial, length = study.ask(), len(recorded.curve)
        for step, value in enumerate(recorded.curve):
            trial.report(value, step)
            done += 1
            if step + 1 != length and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, recorded.value)
            whole.append(recorded.value)
    return (max if higher else min)(whole), 1 - done / sum(len(recorded.curve) for recorded in trials)


def row(trials: Sequence[Recorded], higher: bool, make: Callable[[int], BasePruner], orders: int) -> str:
    """In which share of the orders a pruner kept the best value, and the median share of the epochs that it saved."""
    length = max(len(recorded.curve) for recorded in trials)
    best = (max if higher else min)(recorded.value for recorded in trials)
    allowed = TOLERANCE if higher else TOLERANCE * abs(best)
    kept, saved = 0, []
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(trials))
        value, share = replay([trials[index] for index in order], higher, make(length))
        kept += abs(value - best) <= allowed + 1e-12
        saved.append(share)
    return f"{100 * kept / orders:.0f} %, {100 * statistics.median(saved):.0f} %"


def main() -> None:
    """Record, replay and print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["record", "replay"], metavar="record|replay|real")
    parser.add_argument("--directory", type=Path, default=Path("experiments/pruners"))
    parser.add_argument("--only", nargs="+", choices=sorted(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--orders", type=int, default=100)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if "record" in options.what:
        for name in options.only:
            words = ["hydra/sweeper/pruner=none", f"hydra.sweeper.n_trials={TRIALS}"]
            run(sweep(name, options.directory / name, *words))
    if "replay" in options.what:
        recorded = {name: read(options.directory / name)[:2] for name in options.only}
        print(f"| pruner | {' | '.join(recorded)} |\n|---|{'---|' * len(recorded)}")
        for pruner, make in PRUNERS.items():
            cells = [row(trials, higher, make, options.orders) for higher, trials in recorded.values()]
            print(f"| {pruner} | {' | '.join(cells)} |", flush=True)
    if "real" in options.what:
        for name in options.only:
            real(name, options.directory)


def real(name: str, directory: Path) -> None:
    """Sweeps with the default pruner and without one, seed by seed."""
    for seed in range(5):
        found = []
        for pruner in ("auto", "none"):
            place = directory / f"{name}-{seed}-{pruner}"
            choice = ["hydra/sweeper/pruner=none"] if pruner == "none" else []
            run(sweep(name, place, *choice, "hydra.sweeper.n_trials=20", f"seed={seed}"))
            higher, trials, epochs = read(place)
            found.append(((max if higher else min)(recorded.value for recorded in trials), epochs))
        (with_, short), (without, long) = found
        print(
            f"{name} seed {seed}: best {with_:.4f} in {short} epochs, without pruner {without:.4f} in {long}",
            flush=True,
        )


if __name__ == "__main__":
    main()
