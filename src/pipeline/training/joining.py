"""Trees of any library as arrays of nodes, joined into one ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.models.trees import Ensemble


@dataclass(frozen=True)
class Part:
    """One tree, its nodes numbered from 0 with the two children of a node side by side."""

    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    value: np.ndarray


def part(
    feature: np.ndarray, threshold: np.ndarray, left: np.ndarray, right: np.ndarray, value: np.ndarray
) -> Part:
    """A tree from arrays of its nodes, the first of which is the root.

    Args:
        feature: Column that each node compares.
        threshold: Largest value that goes to the left.
        left: Number of the left child, negative in a leaf.
        right: Number of the right child.
        value: What a leaf adds, (nodes, 1 or outputs).
    """
    inner = np.flatnonzero(left >= 0)
    place = np.zeros(len(left), dtype=np.int64)
    place[left[inner]] = 1 + 2 * np.arange(len(inner))
    place[right[inner]] = 2 + 2 * np.arange(len(inner))
    child = np.arange(len(left))
    child[place[inner]] = 1 + 2 * np.arange(len(inner))
    features = np.zeros(len(left), dtype=np.int32)
    features[place[inner]] = feature[inner]
    thresholds = np.full(len(left), np.inf, dtype=np.float32)
    thresholds[place[inner]] = rounded_down(threshold[inner])
    values = np.zeros((len(left), value.shape[1]), dtype=np.float32)
    values[place] = value
    values[place[inner]] = 0
    return Part(features, thresholds, child, values)


def rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 up to each threshold: a float32 is at most the one exactly where it is at most the other."""
    single = threshold.astype(np.float32)
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)


def joined(parts: list[Part], output: Tensor, start: Tensor, depth: int) -> Ensemble:
    """Trees side by side."""
    sizes = np.array([len(one.child) for one in parts])
    root = np.concatenate([[0], sizes.cumsum()[:-1]])
    return Ensemble(
        feature=torch.from_numpy(np.concatenate([one.feature for one in parts])),
        threshold=torch.from_numpy(np.concatenate([one.threshold for one in parts])),
        child=torch.from_numpy(
            np.concatenate([one.child + offset for one, offset in zip(parts, root, strict=True)])
        ),
        value=torch.from_numpy(np.concatenate([one.value for one in parts])),
        root=torch.from_numpy(root),
        output=output,
        start=start,
        depth=depth,
    )
