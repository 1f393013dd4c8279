"""From files to what a model takes: film reviews from their archive and from the cache, a large CSV."""

from __future__ import annotations

import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, alternate


def reviews(repetitions: int) -> list[Row]:
    """The archive of film reviews against one loop that reads and tokenises it; then from the cache."""
    from pipeline.config import compose
    from pipeline.data.sources import catalogue
    from pipeline.data.sources import finding as sources
    from pipeline.data.text.words import tokenise_fast
    from pipeline.runs.plan import plain
    from pipeline.training import building

    archive = sources.locate(catalogue.IMDB, Path("data"), sources.search_path(), download=False)

    def load(folder: str) -> float:
        cfg = compose(["+experiment=imdb_mlp", f"paths.data_dir={folder}"])
        building._prepared.clear()
        began = time.perf_counter()
        building.build_data(plain(cfg.data))
        return time.perf_counter() - began

    def first() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return load(folder)

    def plain_loop() -> float:
        began = time.perf_counter()
        words, labels = [], []
        with tarfile.open(archive) as members:
            for member in members:
                name = member.name.split("/")
                if name[-1].endswith(".txt") and len(name) == 4 and name[2] in ("neg", "pos"):
                    file = members.extractfile(member)
                    assert file is not None
                    words.append(tokenise_fast(file.read().decode()))
                    labels.append(name[2])
        return time.perf_counter() - began

    ours, theirs = alternate(first, plain_loop, repetitions, warm_up=False)
    with tempfile.TemporaryDirectory() as folder:
        load(folder)
        again, _ = alternate(lambda: load(folder), lambda: 0.0, repetitions)
    return [
        Row(
            "IMDB, archive to model input", f"{ours:.1f} s", f"loop: {theirs:.1f} s", ours / theirs, "<= 1.2"
        ),
        Row("IMDB, from the cache", f"{again:.2f} s", "", again, "<= 1.0"),
    ]


def large_csv(repetitions: int, rows: int = 1_000_000, columns: int = 30) -> list[Row]:
    """A CSV of numbers to tensors against ``pandas.read_csv`` of it."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv

    from pipeline.config import compose
    from pipeline.data.tables import files as table_files
    from pipeline.runs.plan import plain
    from pipeline.training import building

    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        values = generator.normal(size=(columns - 1, rows)).astype(np.float32)
        table = {f"x{number}": column for number, column in enumerate(values)}
        csv.write_csv(pa.table({**table, "y": values[:5].sum(0)}), path)
        del values, table

        def to_tensors() -> float:
            building._prepared.clear()
            table_files._read_cached.cache_clear()
            cfg = compose(["data=csv", f"data.path={path}", "data.target=y", "model=linear"])
            began = time.perf_counter()
            building.build_data(plain(cfg.data))
            return time.perf_counter() - began

        def pandas() -> float:
            began = time.perf_counter()
            pd.read_csv(path)
            return time.perf_counter() - began

        ours, theirs = alternate(to_tensors, pandas, repetitions)
    name = f"CSV of {rows:,} rows × {columns} columns to tensors"
    return [Row(name, f"{ours:.1f} s", f"pandas.read_csv: {theirs:.1f} s", ours / theirs, "<= 2.0")]
