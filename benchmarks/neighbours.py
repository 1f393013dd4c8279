"""Training beside other busy processes: ``python -m benchmarks.neighbours [--only cnn ...] [--seconds 20]``.

A CNN, an MLP and an LSTM learn 2,000 images of 32 × 32 (noise) for some seconds with ``trainer.threads=auto`` and with
fixed numbers of threads, in turn: as the machine is, and then beside a busy process for each core, which this command
starts itself. Each fit is a process of its own. Its figure is samples a second in the second half of its time, when
``auto`` has compared. ``awake`` is what OpenMP does by itself, with all cores: threads that wait compute on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODELS = {
    "cnn": ["model=cnn", "trainer.precision=32-true"],
    "mlp": ["model=mlp", "model.hidden_units=[512,512]", "data.batch_size=128"],
    "lstm": ["model=lstm", "model.hidden_units=64", "data.batch_size=128"],
}
IMAGES, SIDE, CLASSES = 2_000, 32, 4


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def images(place: Path) -> Path:
    """A file of images in the shape that ``data=image_folder`` reads."""
    import numpy as np

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(place / "images.npz", images=pixels, labels=np.arange(IMAGES) % CLASSES)
    return place / "images.npz"


def fitted(words: list[str], threads: str, seconds: float, file: Path, awake: bool) -> dict[str, Any]:
    """Samples a second of the second half of a fit, and the numbers of threads that it used."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    if awake:
        environment["OMP_WAIT_POLICY"] = "ACTIVE"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "pipeline", "data=image_folder", f"data.path={file}", "name=neighbours"),
            *(*words, f"trainer.threads={threads}", "recipe=none", "trainer.max_epochs=100000"),
            *(f"trainer.max_time=00:00:00:{seconds:02.0f}", "logger=none", "test=false"),
            *("checkpoint.every_seconds=1000", f"paths.experiments_dir={folder}"),
        ]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        [path] = Path(folder).glob("runs/*/*/result.json")
        result = json.loads(path.read_text())
    rates = [rate for _, rate in result["history"]["train/samples_per_second"]]
    # Every epoch has as many samples: the time of each is the inverse of its rate.
    left, half = sum(1 / rate for rate in rates) / 2, []
    for rate in reversed(rates):
        half.append(1 / rate)
        if sum(half) >= left:
            break
    return {"rate": len(half) / sum(half), "threads": result["threads"]}


def measure(name: str, file: Path, seconds: float, repetitions: int) -> dict[str, list[float]]:
    """Samples a second of each way to choose the number of threads, in turn."""
    ways = ["auto", *dict.fromkeys(["1", str(max(1, cores() // 2)), str(cores())]), "awake"]
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repetitions):
        for way in ways:
            threads = str(cores()) if way == "awake" else way
            one = fitted(MODELS[name], threads, seconds, file, way == "awake")
            found[way].append(one["rate"])
            print(f"  {name} {way}: {one['rate']:,.0f} samples/s, threads {one['threads'][:6]}", flush=True)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each fit, below 60")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--beside", type=int, nargs="+", default=[0, cores()], help="numbers of busy processes"
    )
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as place:
        file = images(Path(place))
        for processes in options.beside:
            for name in options.only:
                with busy(processes):
                    found = measure(name, file, options.seconds, options.repetitions)
                rates = {way: statistics.median(values) for way, values in found.items()}
                best = max(rate for way, rate in rates.items() if way not in ("auto", "awake"))
                cells = "; ".join(f"{way}: {rate:,.0f}" for way, rate in rates.items())
                lines.append(f"| {name} | {processes} | {cells} | {rates['auto'] / best:.2f} | ≥ 0.9 |")
    print("| model | busy processes beside | samples/s by number of threads | auto / best | goal |")
    print("|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
