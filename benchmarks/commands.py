"""What a person waits for before anything is computed: whole commands, each in a fresh process.

One call of each side does not count, so that what they read is in the page cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, alternate

QUICK = {
    "`--help`": ["--help"],
    "`--cfg job`": ["+experiment=mnist_cnn", "--cfg", "job"],
    "an error in the configuration": ["+experiment=mnist_cnn", "optimizer.lr=-1"],
}


def quick(repetitions: int) -> list[Row]:
    """Commands that have to answer at once."""
    rows = []
    for name, words in QUICK.items():
        command = [sys.executable, "-X", "importtime", "-m", "pipeline", *words]
        imported = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        torch = any(line.rsplit("|", 1)[-1].strip() == "torch" for line in imported.splitlines())

        def once(words: list[str] = words) -> float:
            return _seconds("-m", "pipeline", *words)

        seconds, _ = alternate(once, lambda: 0.0, repetitions)
        rows.append(Row(name, f"{seconds:.2f} s", f"torch imported: {torch}", seconds, "<= 1.0"))
    return rows


def first_step(repetitions: int) -> list[Row]:
    """From the command to the end of the first optimiser step, against importing torch."""
    ours, torch = alternate(_until_first_step, lambda: _seconds("-c", "import torch"), repetitions)
    lightning = _seconds("-c", "import pytorch_lightning")
    against = f"import torch: {torch:.2f} s (pytorch_lightning: {lightning:.2f} s)"
    return [Row("`mnist_mlp`: command to first step", f"{ours:.2f} s", against, ours / torch, "<= 2.0")]


def _seconds(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    return time.perf_counter() - began


def _until_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "stepped"
        words = [
            "+experiment=mnist_mlp",
            "trainer.max_epochs=1",
            "test=false",
            "--allow=benchmarks.first_step.FirstStep",
            "+callbacks.mark._target_=benchmarks.first_step.FirstStep",
            f"+callbacks.mark.path={mark}",
            f"paths.experiments_dir={folder}",
        ]
        began = time.time()
        subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, check=True)
        return float(mark.read_text()) - began
