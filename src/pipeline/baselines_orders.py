"""The recommendation that needs no learning: what is ordered most around here."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.spec import Spec
from pipeline.data.splits import Rows


def most_ordered_in_the_area(train: Rows, evaluate: Rows, spec: Spec, areas: range) -> dict[str, float]:
    """Rank the dishes by how often they were ordered in the order's area in training.

    Args:
        train: the training orders.
        evaluate: the orders to predict.
        spec: of the data; ``top_k`` dishes are recommended.
        areas: the inputs that say which area an order is from.

    Returns:
        ``hit_rate_at_<top_k>``, ``accuracy`` and the ``loss`` of predicting the area's frequencies.
    """
    counts = torch.zeros(len(areas), spec.outputs, dtype=torch.float64)
    known = torch.cat([_area(train, rows, areas) for rows in train.order(4096)])
    counts.view(-1).index_add_(0, known * spec.outputs + train.y, torch.ones(len(known), dtype=torch.float64))
    # One more of everything (Laplace): a dish new to the area must not make the loss infinite.
    log_p = ((counts + 1) / (counts + 1).sum(1, keepdim=True)).log()
    ranked = log_p.topk(min(spec.top_k, spec.outputs), dim=1).indices
    area = torch.cat([_area(evaluate, rows, areas) for rows in evaluate.order(4096)])
    hits = ranked[area] == evaluate.y[:, None]
    return {
        f"hit_rate_at_{spec.top_k}": float(hits.any(1).double().mean()),
        "accuracy": float(hits[:, 0].double().mean()),
        "loss": float(-log_p[area, evaluate.y].mean()),
    }


def _area(split: Rows, rows: Tensor, areas: range) -> Tensor:
    return split.take(rows)[0][:, areas.start : areas.stop].argmax(1)
