"""What a model takes in service: time for a thousand rows, and room on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.data.core.splits import RaggedRows
from pipeline.evaluation.outputs import loader_of
from pipeline.training.module import batches_of

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.core.module import DataModule
    from pipeline.data.core.splits import Rows
    from pipeline.models.base import BaseModule

ROWS = 1000
_REPETITIONS, _ENOUGH = 3, 0.5
"""How often it is measured at most, and the seconds after which once is enough."""
_FIRST = 32
"""Rows that a model is asked for before."""
_TIMED = 256
"""Rows that tell how long the others will take."""


def milliseconds_for_a_thousand(model: BaseModule, data: DataModule) -> float:
    """Milliseconds that a model takes to predict 1,000 rows, on this machine's CPU; NaN where there are none.

    The rows are training rows as its encoder gives them, in batches of a test's size; the quickest of up to
    three times counts. Fewer rows than that are taken for as many as there are.

    Args:
        model: The trained model.
        data: The data that it was trained on.
    """
    batches: list[Tensor] = []
    rows = 0
    for batch in loader_of(data, data.train):
        for x, y in batches_of(batch):
            # Of texts and series each step is a prediction.
            rows += y.numel() if data.spec.per_step else len(y)
            batches.append(x)
        if rows >= ROWS:
            break
    if not rows:
        return float("nan")
    seconds = []
    with torch.inference_mode():
        # The first time is a slower one.
        model(batches[0][:_FIRST])
        for _ in range(_REPETITIONS):
            began = time.perf_counter()
            for x in batches:
                model(x)
            seconds.append(time.perf_counter() - began)
            if sum(seconds) > _ENOUGH:
                break
    return 1000 * min(seconds) * ROWS / rows


def seconds_for_a_row(model: BaseModule, data: DataModule, split: Rows) -> float:
    """Seconds that a model takes to answer for a row, on this machine's CPU, by some rows of a split.

    Args:
        model: The trained model.
        data: The data that it was trained on.
        split: The split, which has rows.
    """
    x = next(iter(batches_of(next(iter(loader_of(data, split))))))[0][:_TIMED]
    with torch.inference_mode():
        model(x[:_FIRST])
        began = time.perf_counter()
        model(x)
        return seconds_of_rows(time.perf_counter() - began, x, split) / len(split)


def seconds_of_rows(seconds: float, x: Tensor, split: Rows) -> float:
    """Seconds that all rows of a split take, by those of a batch: of texts, each taken beside others of its length.

    Args:
        seconds: What the batch took.
        x: The batch's input; texts are filled up to the longest.
        split: The split.
    """
    if isinstance(split, RaggedRows):
        return seconds / x.numel() * len(split.tokens)
    return seconds / len(x) * len(split)


def seconds_at_the_end(asking: float, data: DataModule) -> float:
    """What the test of a model takes, with the rows by which the time that it takes to answer is measured.

    Args:
        asking: Seconds that it takes to answer for a row.
        data: The data.
    """
    return asking * (len(data.test or ()) + ROWS + _FIRST)


def bytes_on_disk(directory: Path) -> int:
    """Size of a saved model's files, in bytes."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def size_in_words(size: int) -> str:
    """A size in bytes as one reads it: ``12 kB``, ``3.4 MB``."""
    if size < 1000 * 1000:
        return f"{max(1, round(size / 1000)):,} kB" if size else ""
    return f"{size / 1e6:,.1f} MB"
