"""The ladder of a large table within a budget: ``python -m benchmarks.large_table [--rows 1000000] [--budget 15m]``.

A generated table of 30 columns, 20 of them numbers and 10 categories, with a target that takes both and their products.
Shown are the seconds of the whole command, start to report, its peak memory against that of the table, and every rung.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.against import seconds_of

NUMBERS, CATEGORIES, VALUES = 20, 10, 12


def frame_of(rows: int, seed: int = 0) -> pd.DataFrame:
    """The table."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, NUMBERS)).astype(np.float32)
    codes = draw.integers(0, VALUES, size=(rows, CATEGORIES))
    effects = draw.normal(size=(CATEGORIES, VALUES))
    y = 3 * np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) + x[:, 4:8].sum(1)
    y += sum(effects[column][codes[:, column]] for column in range(4)) + draw.normal(size=rows)
    made = pd.DataFrame(x.round(4), columns=[f"x{number}" for number in range(NUMBERS)])
    names = np.array([f"value {letter}" for letter in "abcdefghijkl"])
    for column in range(CATEGORIES):
        made[f"c{column}"] = names[codes[:, column]]
    return made.assign(y=y.round(4))


def main() -> None:
    """Make the table, climb its ladder, print what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_table", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", default="15m")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "large.csv"
        frame = frame_of(options.rows)
        frame.to_csv(path, index=False)
        size = int(frame.memory_usage(deep=True).sum())
        del frame
        words = ["task=improve", "data=csv", f"data.path={path}", "data.target=y", "logger=none"]
        words += [
            f"task.budget={options.budget}",
            f"hydra.run.dir={place}/run",
            f"paths.experiments_dir={place}",
        ]
        began = time.time()
        done = subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, text=True)
        seconds = time.time() - began
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        rungs = json.loads((Path(place) / "run/result.json").read_text())["nested"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    asked = seconds_of(options.budget)
    print(f"{options.rows:,} rows: {seconds:.0f} s of {asked:.0f} s ({seconds / asked - 1:+.0%})")
    print(
        f"peak memory of its largest process: {peak / 1e9:.2f} GB; the table in pandas "
        f"{size / 1e9:.2f} GB: {peak / size:.1f} times"
    )
    for rung in rungs:
        figure = "" if rung.get("test/mae") is None else f"{rung['test/mae']:.4f}"
        print(f"  {rung['rung']:14s} {figure:8s} {rung['seconds']:6.0f} s  {rung['showed']}")


if __name__ == "__main__":
    main()
