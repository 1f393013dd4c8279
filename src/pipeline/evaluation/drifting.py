"""Which inputs, and whether the predictions, are distributed otherwise than in the training data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.evaluation.outputs import Outputs, loader_of, outputs_on

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor


def drifted(
    own: DataModule, split: Rows, outputs: Outputs, predictor: Predictor, cfg: DictConfig
) -> dict[str, Any]:
    """Which inputs, and whether the predictions, are distributed otherwise than in the training data.

    Args:
        own: The data that the model was trained on.
        split: The rows to compare its training split with.
        outputs: What the model gives for those rows.
        predictor: The model with its encoder.
        cfg: Configuration of the run that trained the model.

    Returns:
        ``moved``, the names of what moved, and ``features``, at most 50 rows of name, statistic, p-value and verdict,
        the largest statistic first.
    """
    from pipeline.evaluation.statistics import drift

    before, names = features(own, own.train, predictor)
    now, _ = features(own, split, predictor)
    trained = outputs_on(predictor.module, loader_of(own, own.train.subset(_sample(own.train))), cfg)
    pairs = {name: (before[:, i], now[:, i]) for i, name in enumerate(names)}
    pairs |= {f"prediction {name}": pair for name, pair in _answers(trained, outputs).items()}
    rows: list[dict[str, Any]] = []
    for name, (first, second) in pairs.items():
        statistic, p_value = drift(first, second)
        # Of many features some differ by chance: each is held to its share of one in a hundred.
        rows.append(
            {"name": name, "statistic": statistic, "p_value": p_value, "moved": p_value < 0.01 / len(pairs)}
        )
    rows.sort(key=lambda row: -row["statistic"] if math.isfinite(row["statistic"]) else 1.0)
    return {"moved": [row["name"] for row in rows if row["moved"]], "features": rows[:50]}


def features(data: DataModule, split: Rows, predictor: Predictor) -> tuple[np.ndarray, list[str]]:
    """Some samples as (samples, features) with names: columns as they are, images and words summed up."""
    x = split.take(_sample(split))[0].float()
    if predictor.spec.input == "vector":
        named = getattr(predictor.encoder, "columns", [])
        return x.flatten(1).numpy(), named if len(named) == x.shape[1] else [
            f"input {i}" for i in range(x.shape[1])
        ]
    if predictor.spec.input == "image":
        flat = x.flatten(1)
        half = x.shape[2] // 2
        parts = [
            flat.mean(1),
            flat.std(1),
            x[:, :, :half].flatten(1).mean(1),
            x[:, :, half:].flatten(1).mean(1),
        ]
        return torch.stack(parts, 1).numpy(), ["brightness", "contrast", "upper half", "lower half"]
    if predictor.spec.input == "tokens":
        known = x > 1
        share = known.sum(1) / (x > 0).sum(1).clamp(min=1)
        return torch.stack([(x > 0).sum(1), share], 1).numpy(), ["words", "share of known words"]
    return x.flatten(1).sum(1, keepdim=True).numpy(), ["words" if predictor.spec.input == "bag" else "sum"]


def _sample(split: Rows, most: int = 5000) -> Tensor:
    n = len(split)
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).long()


def _answers(before: Outputs, now: Outputs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if before.spec.task == "regression":
        return {"": (before.logits.reshape(-1).numpy(), now.logits.reshape(-1).numpy())}
    first, second = before.probabilities(), now.probabilities()
    return {name: (first[:, i], second[:, i]) for i, name in enumerate(before.spec.classes[:20])}
