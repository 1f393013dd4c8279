"""The only door to scikit-learn's private side: the trees of a HistGradientBoosting, which have no public name.

tests/training/test_growing.py compares them with the library's own predictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Nodes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def histogram_trees(booster: Any) -> tuple[list[list[Nodes]], np.ndarray]:
    """The trees of a fitted booster.

    Returns:
        For each round the trees of each output (column, threshold, left child or -1, right child, value, depth), and
        what every sample begins with, (outputs,).

    Raises:
        RuntimeError: This version of scikit-learn keeps them elsewhere.
    """
    try:
        rounds = [[_nodes(tree.nodes) for tree in trees] for trees in booster._predictors]
        start = np.asarray(booster._baseline_prediction, dtype=np.float64).reshape(-1)
    except (AttributeError, ValueError, KeyError) as error:
        raise RuntimeError(
            f"this version of scikit-learn keeps the trees of HistGradientBoosting elsewhere ({error}); see "
            "pipeline.training.boosting_inside, or install lightgbm"
        ) from error
    return rounds, start


def _nodes(nodes: np.ndarray) -> Nodes:
    leaf = nodes["is_leaf"].astype(bool)
    left = np.where(leaf, -1, nodes["left"].astype(np.int64))
    return (
        nodes["feature_idx"],
        nodes["num_threshold"],
        left,
        nodes["right"].astype(np.int64),
        nodes["value"][:, None],
        int(nodes["depth"].max()),
    )
