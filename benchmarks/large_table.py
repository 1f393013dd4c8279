"""The ladder of a large table within a budget: ``python -m benchmarks.large_table [--rows 1000000] [--budget 15m]``.

A generated table of 30 columns, 20 of them numbers and 10 categories, with a target that takes both and their products.
Shown are the seconds of the whole command, start to report, its peak memory against that of the table, and every rung.
Memory is that of the command and all its processes, what they share counted once (proportional set size), twice a
second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

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


def memory_of(process: psutil.Process) -> int:
    """Bytes that a process and all that it started take, what they share counted once."""
    taken = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                taken += one.memory_full_info().pss
    return taken


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
        del frame
        read = pd.read_csv(path)
        size = int(read.memory_usage(deep=True).sum())
        del read
        words = ["task=improve", "data=csv", f"data.path={path}", "data.target=y", "logger=none"]
        words += [
            f"task.budget={options.budget}",
            f"hydra.run.dir={place}/run",
            f"paths.experiments_dir={place}",
        ]
        began, peak, said = time.time(), 0, Path(place) / "said"
        with said.open("w") as out:
            command = subprocess.Popen([sys.executable, "-m", "pipeline", *words], stdout=out, stderr=out)
        while command.poll() is None:
            peak = max(peak, memory_of(psutil.Process(command.pid)))
            time.sleep(0.5)
        seconds = time.time() - began
        if command.returncode:
            raise SystemExit(said.read_text())
        rungs = json.loads((Path(place) / "run/result.json").read_text())["nested"]
    asked = seconds_of(options.budget)
    print(f"{options.rows:,} rows: {seconds:.0f} s of {asked:.0f} s ({seconds / asked - 1:+.0%})")
    print(
        f"peak memory of all its processes: {peak / 1e9:.2f} GB; the table in pandas {size / 1e9:.2f} GB: "
        f"{peak / size:.1f} times"
    )
    for rung in rungs:
        figure = "" if rung.get("test/mae") is None else f"{rung['test/mae']:.4f}"
        print(f"  {rung['rung']:14s} {figure:8s} {rung['seconds']:6.0f} s  {rung['showed']}")


if __name__ == "__main__":
    main()
