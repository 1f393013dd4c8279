"""The recommendation that needs no learning: what is ordered most around here."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows


def most_ordered_in_the_area(train: Rows, evaluate: Rows, spec: Spec, areas: range) -> dict[str, float]:
    """Rank the dishes by how often they were ordered in the order's area in training.

    Args:
        train: The training orders.
        evaluate: The orders to predict.
        spec: Description of the data; ``top_k`` dishes are recommended.
        areas: The inputs that say which area an order is from.

    Returns:
        ``hit_rate_at_<top_k>``, ``accuracy`` and the ``loss`` of predicting the area's frequencies.
    """
    log_p, area = _log_frequencies(train, spec, areas), areas_of(evaluate, areas)
    hits = area_hits(train, evaluate, spec, areas)
    return {
        f"hit_rate_at_{spec.top_k}": float(hits.any(1).double().mean()),
        "accuracy": float(hits[:, 0].double().mean()),
        "loss": float(-log_p[area, evaluate.y].mean()),
    }


def area_hits(train: Rows, evaluate: Rows, spec: Spec, areas: range) -> Tensor:
    """Which of the dishes recommended in the order's area it was, the most frequent first, (orders, ``top_k``)."""
    ranked = _log_frequencies(train, spec, areas).topk(min(spec.top_k, spec.outputs), dim=1).indices
    return ranked[areas_of(evaluate, areas)] == evaluate.y[:, None]


def _log_frequencies(train: Rows, spec: Spec, areas: range) -> Tensor:
    counts = torch.zeros(len(areas), spec.outputs, dtype=torch.float64)
    cells = areas_of(train, areas) * spec.outputs + train.y
    counts.view(-1).index_add_(0, cells, torch.ones(len(cells), dtype=torch.float64))
    # One more of everything (Laplace): a dish new to the area must not make the loss infinite.
    return ((counts + 1) / (counts + 1).sum(1, keepdim=True)).log()


def areas_of(split: Rows, areas: range) -> Tensor:
    """The place of each order's area in the inputs that say it, (orders,)."""
    parts = (split.take(rows)[0][:, areas.start : areas.stop].argmax(1) for rows in split.order(4096))
    return torch.cat(list(parts))
