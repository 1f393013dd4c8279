"""What ``trainer.precision=auto`` gains on the network that it is for."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.fit import with_pipeline
from benchmarks.rows import Row, alternate


def measure(repetitions: int) -> list[Row]:
    """``mnist_cnn`` with ``auto`` and in float32, both by the pipeline."""
    from pipeline.config import compose

    def settings(precision: str, folder: str) -> Any:
        return compose(
            [
                "+experiment=mnist_cnn",
                "trainer.max_epochs=1",
                "data.train_samples=16000",
                "test=false",
                f"trainer.precision={precision}",
                f"paths.experiments_dir={folder}",
            ]
        )

    with tempfile.TemporaryDirectory() as folder:
        auto, float32 = settings("auto", folder), settings("32-true", folder)
        ours, theirs = alternate(lambda: with_pipeline(auto), lambda: with_pipeline(float32), repetitions)
    return [
        Row(
            "`mnist_cnn` with `trainer.precision=auto`",
            f"{ours:,.0f} samples/s",
            f"float32: {theirs:,.0f} samples/s",
            ours / theirs,
            ">= 1.8",
        )
    ]
