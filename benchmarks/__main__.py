"""Measure and print the table: ``python -m benchmarks [--quick]``."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version

from benchmarks.fit import EXPERIMENTS, measure, table


def main() -> None:
    """Measure every experiment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=sorted(EXPERIMENTS))
    options = parser.parse_args()
    rows = []
    for experiment, epochs in EXPERIMENTS.items():
        if options.only in (None, experiment):
            repetitions, samples = (1, 6000) if options.quick else (options.repetitions, None)
            rows.append(measure(experiment, epochs, repetitions, samples, "32-true"))
    print(
        f"{platform.processor() or platform.machine()}, torch {version('torch')}, Python {platform.python_version()}"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
