"""Measure and print the table of benchmarks/README.md: ``python -m benchmarks [--only ROW ...]``.

Every ratio is that of medians over five repetitions and more, the two sides in turn in one run. Nothing else should run
meanwhile. The published data sets are looked for on PIPELINE_DATA_PATH and in ``data/``.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import commands, fit, loading, memory, precision, prediction, scaling, slow_server
from benchmarks.rows import Row, table


def benchmarks(options: argparse.Namespace) -> dict[str, Callable[[], list[Row]]]:
    """What is measured, by the name that ``--only`` takes."""
    times = options.repetitions

    def of_experiment(name: str) -> Callable[[], list[Row]]:
        return lambda: [fit.measure(name, times)]

    return {
        **{name: of_experiment(name) for name in fit.EXPERIMENTS},
        "precision": lambda: precision.measure(times),
        "first_step": lambda: commands.first_step(times),
        "commands": lambda: commands.quick(times),
        "predict": lambda: prediction.measure(times),
        "imdb": lambda: loading.reviews(times),
        "csv": lambda: loading.large_csv(times),
        "memory": lambda: memory.measure(min(times, 3)),
        "slow_server": lambda: slow_server.measure(times),
        "scaling": lambda: scaling.flat(times),
        "memmap": lambda: scaling.larger_than_memory(options.rows, options.scratch),
    }


def machine() -> str:
    """Processor, cores, memory, date and versions, in a line."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in facts.splitlines() if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "mlflow"))
    processor = names[0] if names else platform.processor()
    return (
        f"{processor}, {os.cpu_count()} cores, {gigabytes:.0f} GB, {datetime.now(UTC):%Y-%m-%d}; "
        f"Python {platform.python_version()}, {packages}"
    )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, default=2_000_000, help="of the memory-mapped table; 100000000 is 12 GB"
    )
    parser.add_argument("--scratch", type=Path, help="directory for that table (default: the temporary one)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="names of rows (default: all)")
    options = parser.parse_args()
    known = benchmarks(options)
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(machine(), flush=True)
    rows: list[Row] = []
    for name in options.only or known:
        found = known[name]()
        rows += found
        for row in found:
            print(f"  {name}: {row.ours} | {row.against} | {row.value:.3f} ({row.goal})", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
