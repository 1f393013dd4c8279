"""Cost grows with the data and memory does not: generated tables from 10,000 to 100 million rows, on disk."""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

COLUMNS = 30
CHUNK = 250_000


def flat(repetitions: int) -> list[Row]:
    """Fit time per sample of 10,000 to 1,000,000 rows: the same number of samples in all, so epochs differ."""
    sizes = (10_000, 100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        cfgs = {rows: _settings(Path(folder), rows, 1_000_000 // rows) for rows in sizes}
        times: dict[int, list[float]] = {rows: [] for rows in sizes}
        for repetition in range(repetitions + 1):
            for rows, cfg in cfgs.items():
                seconds = _fit(cfg, Path(folder))
                if repetition:
                    times[rows].append(1e6 * seconds / (cfg.trainer.max_epochs * rows))
    medians = {rows: statistics.median(values) for rows, values in times.items()}
    said = ", ".join(f"{rows:,}: {value:.2f}" for rows, value in medians.items())
    worst = medians[sizes[-1]] / medians[sizes[0]]
    return [Row("µs of fit per sample by number of samples", said, "", worst, "<= 1.1 (largest / smallest)")]


def larger_than_memory(rows: int, where: Path | None) -> list[Row]:
    """A full pass over a memory-mapped table, watching the memory that is not the page cache's."""
    # In a process of its own, so that memory of other measurements does not count.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        gigabytes, seconds, peak = pool.submit(_full_pass, rows, where).result()
    name = f"memory-mapped table of {rows:,} rows × {COLUMNS} ({gigabytes:.1f} GB), one epoch"
    said = f"{seconds:.0f} s, {rows / seconds:,.0f} samples/s"
    return [Row(name, said, "anonymous memory, GB", peak / 1e9, "<= 2.0")]


def _full_pass(rows: int, where: Path | None) -> tuple[float, float, int]:
    """Gigabytes on disk, seconds of an epoch and the most anonymous memory in bytes."""
    with tempfile.TemporaryDirectory(dir=where) as folder:
        cfg = _settings(Path(folder), rows, 1)
        gigabytes = sum(file.stat().st_size for file in Path(folder, str(rows)).iterdir()) / 1e9
        with _Anonymous() as memory:
            seconds = _fit(cfg, Path(folder))
    return gigabytes, seconds, memory.peak


def _settings(folder: Path, rows: int, epochs: int) -> Any:
    from pipeline.config import compose
    from pipeline.data.tables.memmap import write_table

    write_table(folder / str(rows), _chunks(rows), [f"x{number}" for number in range(COLUMNS)])
    return compose(
        [
            "data=memmap",
            f"data.path={folder / str(rows)}",
            "data.batch_size=4096",
            f"data.block={min(8192, rows // 100)}",
            "model=mlp",
            f"trainer.max_epochs={epochs}",
            "logger=none",
            "test=false",
        ]
    )


def _chunks(rows: int) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    generator = np.random.default_rng(0)
    weights = generator.normal(size=COLUMNS).astype(np.float32)
    for start in range(0, rows, CHUNK):
        x = generator.standard_normal((min(CHUNK, rows - start), COLUMNS), dtype=np.float32)
        yield x, x @ weights


def _fit(cfg: Any, folder: Path) -> float:
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    with tempfile.TemporaryDirectory(dir=folder) as run:
        cfg.paths.experiments_dir = run
        hooks = Hooks(directory=Path(run) / "run", reports=False, baseline=False)
        return train(cfg, hooks).seconds["fit"]


class _Anonymous:
    """Bytes of memory of this process that no file backs: the most that was seen."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Anonymous:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(line for line in lines if line.startswith("RssAnon")).split()[1]
            self.peak = max(self.peak, 1024 * int(kilobytes))
