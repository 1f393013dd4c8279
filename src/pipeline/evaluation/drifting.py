"""Which inputs, and whether the predictions, are distributed otherwise than in the training data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from pipeline.data.core.splits import Rows
from pipeline.data.orders.module import OrdersModule
from pipeline.data.tables.words import spelling
from pipeline.evaluation.outputs import Outputs, loader_of, outputs_on

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor


BLOCK = 512
"""Samples of a bag that are unfolded together."""


def drifted(
    own: DataModule,
    split: Rows,
    outputs: Outputs,
    predictor: Predictor,
    cfg: DictConfig,
    unknown: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Which inputs, answers and classes are distributed otherwise than in the training data.

    Args:
        own: The data that the model was trained on.
        split: The rows to compare its training split with.
        outputs: What the model gives for those rows.
        predictor: The model with its encoder.
        cfg: Configuration of the run that trained the model.
        unknown: How often there were classes, beside those rows, that the model does not know.

    Returns:
        ``moved``, the names of what moved, and ``features``, at most 50 rows of name, statistic, p-value and verdict,
        the largest statistic first. What is there or not is tested by its share, anything else by its distribution.
    """
    from pipeline.evaluation.statistics import drift, shares_differ

    found: list[tuple[str, float, float]] = []
    for name, (first, second) in _distributions(own, split, outputs, predictor, cfg).items():
        found.append((name, *drift(first, second)))
    for names, before, now in (_inputs_of_bags(own, split, predictor), _classes(own, split, unknown or {})):
        statistics, p_values = shares_differ(*before, *now)
        found += zip(names, statistics.tolist(), p_values.tolist(), strict=True)
    # Of many features some differ by chance: each is held to its share of one in a hundred.
    rows: list[dict[str, Any]] = [
        {"name": name, "statistic": statistic, "p_value": p_value, "moved": p_value < 0.01 / len(found)}
        for name, statistic, p_value in found
    ]
    rows.sort(key=lambda row: -row["statistic"] if math.isfinite(row["statistic"]) else 1.0)
    return {"moved": [row["name"] for row in rows if row["moved"]], "features": rows[:50]}


def _distributions(
    own: DataModule, split: Rows, outputs: Outputs, predictor: Predictor, cfg: DictConfig
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values in training and now, by name; of recommendations none, which grow surer as histories grow."""
    if own.spec.top_k:
        return {}
    before, names = features(own, own.train, predictor)
    now, _ = features(own, split, predictor)
    trained = outputs_on(predictor.module, loader_of(own, own.train.subset(_sample(own.train))), cfg)
    pairs = {name: (before[:, i], now[:, i]) for i, name in enumerate(names)}
    return pairs | {f"prediction {name}": pair for name, pair in _answers(trained, outputs).items()}


Shares = tuple[list[str], tuple[np.ndarray, int | np.ndarray], tuple[np.ndarray, int]]
"""Names, how often each was there in training and of how many, and the same now."""


def _inputs_of_bags(own: DataModule, split: Rows, predictor: Predictor) -> Shares:
    """In how many samples each named input of a bag is there."""
    names = predictor.encoder.input_names() if predictor.spec.input == "bag" else []
    named = [number for number, name in enumerate(names) if name]
    if not named:
        return [], (np.zeros(0, int), 1), (np.zeros(0, int), 1)
    before, now = _occurring(own.train), _occurring(split)
    of_before = np.full(len(names), len(_sample(own.train)))
    if isinstance(own, OrdersModule):
        # Whoever orders in training is known for it: how often somebody is not, orders tell that were held out of it.
        encoder, held_out = own.encoder, None if own.train_on_all else own.validation
        places = [encoder.first_area - 1, encoder.first_hour - 1]
        if held_out is None:
            named = [number for number in named if number not in places]
        else:
            before[places], of_before[places] = _occurring(held_out)[places], len(_sample(held_out))
    of_now = len(_sample(split))
    return [names[number] for number in named], (before[named], of_before[named]), (now[named], of_now)


def _occurring(split: Rows) -> np.ndarray:
    # Bags are wide: some at a time, or they would fill the memory.
    parts = [(split.take(rows)[0] != 0).sum(0) for rows in _sample(split).split(BLOCK)]
    return np.asarray(torch.stack(parts).sum(0).numpy())


def _classes(own: DataModule, split: Rows, unknown: Mapping[str, int]) -> Shares:
    """How often each class is the true one."""
    spec = own.spec
    if not spec.classes or spec.per_step:
        return [], (np.zeros(0, int), 1), (np.zeros(0, int), 1)
    size = len(spec.classes)
    if spec.task == "multilabel":
        shares = [(part.y.long().sum(0).numpy(), len(part)) for part in (own.train, split)]
        return [f"{spec.target_name} {name}" for name in spec.classes], shares[0], shares[1]
    counts = [np.bincount(part.y.reshape(-1).long().numpy(), minlength=size) for part in (own.train, split)]
    cut, now = left_out(own, unknown)
    names = [f"{spec.target_name} {name}" for name in [*spec.classes, *now]]
    first = np.append(counts[0], np.array([cut.get(name, 0) for name in now], int))
    second = np.append(counts[1], np.array(list(now.values()), int))
    return names, (first, int(first.sum())), (second, int(second.sum()))


def left_out(own: DataModule, unknown: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """How often there were classes that a model does not know, in its training data and now, both under one name.

    Args:
        own: The data that the model was trained on: of orders, it may have left out rare items.
        unknown: How often there are such classes now.

    Returns:
        The counts of training, and those of now: 0 for what was left out and is not there any more.
    """
    if not isinstance(own, OrdersModule):
        return {}, dict(unknown)
    key = spelling if own.encoder.layout.folds else str
    shown = {key(name): name for name in unknown}
    cut = {shown.get(key(name), name): count for name, count in own.judged["train"].unknown.items()}
    return cut, {**unknown, **{name: 0 for name in cut if name not in unknown}}


def features(data: DataModule, split: Rows, predictor: Predictor) -> tuple[np.ndarray, list[str]]:
    """Some samples as (samples, features) with names: columns as they are, images and words summed up."""
    if predictor.spec.input == "bag":
        sums = [split.take(rows)[0].sum(1, keepdim=True) for rows in _sample(split).split(BLOCK)]
        return torch.cat(sums).numpy(), ["words"]
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
    return x.flatten(1).sum(1, keepdim=True).numpy(), ["sum"]


def _sample(split: Rows, most: int = 5000) -> Tensor:
    n = len(split)
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).long()


def _answers(before: Outputs, now: Outputs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if before.spec.task == "regression":
        return {"": (before.logits.reshape(-1).numpy(), now.logits.reshape(-1).numpy())}
    first, second = before.probabilities(), now.probabilities()
    return {name: (first[:, i], second[:, i]) for i, name in enumerate(before.spec.classes[:20])}
