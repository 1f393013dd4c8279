"""From the roots of trees to the leaves that samples end in."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.symmetric import taken

_PAIRS = 262_144
"""Pairs of a tree and a sample that are looked at together: what they take is small, however many trees there are."""
_LEVELS, _STILL = 3, 0.7
"""Comparisons after which those in a leaf are left out, where no more than such a share is still on its way."""


def taken_whole(x: Tensor) -> bool:
    """Whether a batch is taken as it is, not in parts: on a GPU, and where it is exported."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def leaves_of(
    x: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, root: Tensor, depth: int
) -> Tensor:
    """The node that each sample ends in, (trees, samples).

    Most leaves are much nearer to the root than the deepest one: who has reached one goes no further. What is exported
    or runs on a GPU, where the number of those that are left would have to be waited for, goes on to the deepest.

    Args:
        x: Inputs as trees compare them, (samples, columns).
        feature: Number of the column that each node compares, (nodes,).
        threshold: Largest value that goes to the left, (nodes,).
        child: Number of each node's left child, the right one is the next, (nodes,); a leaf is its own child.
        root: Number of each tree's root, (trees,).
        depth: Most comparisons from a root to a leaf.
    """
    if taken_whole(x):
        return _to_the_deepest(x, feature, threshold, child, root, depth)
    # Places in it are counted in four bytes, where they can be.
    places = torch.int32 if x.numel() < 2**31 else torch.int64
    values, feature = x.t().flatten(), feature.to(places)
    trees = max(1, _PAIRS // max(len(x), 1))
    rows = torch.arange(len(x), dtype=places)
    found = [_ended(values, rows, feature, threshold, child, some, depth) for some in root.split(trees)]
    return torch.cat(found).long()


def _ended(
    values: Tensor, rows: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, root: Tensor, depth: int
) -> Tensor:
    samples, node = len(rows), root.repeat_interleave(len(rows))
    rows = rows.repeat(len(root))
    # Where each of those on their way stands in `ended`; None while that is all of them.
    ended, place = node, None
    for level in range(1, depth + 1):
        compared = values.index_select(0, feature.index_select(0, node) * samples + rows)
        following = child.index_select(0, node) + (compared > threshold.index_select(0, node))
        if level % _LEVELS == 0 and level < depth:
            moved = (following != node).nonzero()[:, 0]
            if len(moved) <= _STILL * len(node):
                ended, place = (
                    (following, moved)
                    if place is None
                    else (ended.index_copy(0, place, following), place[moved])
                )
                following, rows = following[moved], rows[moved]
        node = following
    ended = node if place is None else ended.index_copy(0, place, node)
    return ended.view(len(root), samples)


def _to_the_deepest(
    x: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, root: Tensor, depth: int
) -> Tensor:
    node = root.long()[:, None].expand(-1, x.shape[0])
    columns = x.t()
    for _ in range(depth):
        right = columns.gather(0, taken(feature, node).long()) > taken(threshold, node)
        node = taken(child, node).long() + right
    return node
