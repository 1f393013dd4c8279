"""Training throughput of an experiment against a hand-written PyTorch loop over the same layers.

Both sides see the same samples, batch size, optimiser and precision, and are measured in turn in one process. The
hand-written side keeps normalised float tensors in memory and does nothing but train; the pipeline's side has its
progress, metrics and tracking on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPERIMENTS = {"mnist_mlp": 2, "mnist_cnn": 1, "mnist_lstm": 1}
"""Epochs of one measurement by experiment."""


@dataclass
class Row:
    """One line of the table: samples a second of each side, medians over the repetitions."""

    name: str
    precision: str
    pipeline: float
    by_hand: float

    @property
    def ratio(self) -> float:
        """The pipeline's throughput as a share of the hand-written loop's."""
        return self.pipeline / self.by_hand


def measure(experiment: str, epochs: int, repetitions: int, samples: int | None, precision: str) -> Row:
    """Both sides in turn, ``repetitions`` times."""
    from pipeline.config import compose
    from pipeline.training.building import build_data, build_model

    overrides = [
        f"+experiment={experiment}",
        f"trainer.max_epochs={epochs}",
        f"trainer.precision={precision}",
    ]
    overrides += ["test=false"] + ([f"data.train_samples={samples}"] if samples else [])
    cfg = compose(overrides)
    model = build_model(cfg, build_data(cfg))
    by_hand = prepared_by_hand(cfg, model, precision)
    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(with_pipeline(cfg))
        theirs.append(by_hand(epochs))
    return Row(experiment, precision, statistics.median(ours), statistics.median(theirs))


def with_pipeline(cfg: Any) -> float:
    """Samples a second of a tracked run."""
    from pipeline.tasks.hooks import Hooks
    from pipeline.tasks.train import train

    with tempfile.TemporaryDirectory() as folder:
        cfg = cfg.copy()
        cfg.paths.experiments_dir = folder
        cfg.logger.tracking_uri = f"sqlite:///{folder}/mlflow.db"
        return train(cfg, Hooks(directory=Path(folder) / "run", reports=False)).samples_per_second


def prepared_by_hand(cfg: Any, model: Any, precision: str) -> Callable[[int], float]:
    """A plain loop over ``model``'s layers; called with the epochs, it gives samples a second."""
    import torch
    from torch.nn import functional as F

    from pipeline.config import build
    from pipeline.training.building import build_data, plain

    data = build_data(cfg)
    x, y = data.train.take(torch.arange(len(data.train)))
    x = model.normalised(x)
    # The inputs are normalised once here, as people do by hand.
    model.normalised = lambda inputs: inputs
    settings, size = plain(cfg.optimizer), int(cfg.data.batch_size)

    def run(epochs: int) -> float:
        optimizer = build(settings, model.parameters(), key="optimizer")
        model.train()
        began = time.perf_counter()
        for _ in range(epochs):
            order = torch.randperm(len(x))
            for start in range(0, len(x), size):
                rows = order[start : start + size]
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                    loss = F.cross_entropy(model(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        return epochs * len(x) / (time.perf_counter() - began)

    return run


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| experiment | precision | pipeline, samples/s | by hand, samples/s | ratio |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.precision} | {r.pipeline:,.0f} | {r.by_hand:,.0f} | {r.ratio:.2f} |" for r in rows
    ]
    return "\n".join(lines)
