"""Symmetric trees: each level compares one column with one border, so that the answers are the bits of a leaf's number.

Nothing is walked through: each comparison that any of the trees makes is made once a sample, and a tree's leaf is read
off from its comparisons (the layout of CatBoost's own evaluator, Prokhorenkova et al. 2018, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEEPEST = 12
"""Most levels of a tree that is kept like this: CatBoost's own limit for most kinds of data is 16, ours is 12."""


@dataclass(frozen=True)
class Levels:
    """What symmetric trees compare.

    Args:
        feature: Number of the column that each comparison reads, (comparisons,).
        threshold: Largest value that is not above, (comparisons,).
        bit: Number of the comparison that each bit of a tree's leaf is the answer of, (levels, trees), lowest first.
        leaf: Number of each tree's first leaf among all nodes, (trees,).
    """

    feature: Tensor
    threshold: Tensor
    bit: Tensor
    leaf: Tensor


def levels_of(feature: Tensor, threshold: Tensor, child: Tensor, root: Tensor) -> Levels | None:
    """The comparisons of an ensemble, None where one of its trees is not symmetric.

    Args:
        feature: Number of the column that each node compares, (nodes,).
        threshold: Largest value that goes to the left, (nodes,).
        child: Number of each node's left child, (nodes,); a leaf is its own child.
        root: Number of each tree's root, (trees,), rising.
    """
    end = torch.cat([root[1:], root.new_tensor([len(child)])])
    sizes = (end - root).long()
    depths = (sizes + 1).float().log2().long() - 1
    if not bool((2 ** (depths + 1) - 1 == sizes).all()) or int(depths.max()) > DEEPEST:
        return None
    deepest = int(depths.max())
    # What no value is above: the bit stays 0 in trees with fewer levels.
    features = torch.zeros(deepest, len(root), dtype=torch.int64)
    thresholds = torch.full((deepest, len(root)), torch.inf, dtype=threshold.dtype)
    for depth in sorted(set(depths.tolist())):
        trees = torch.nonzero(depths == depth).flatten()
        place = torch.arange(2 ** (depth + 1) - 1)
        nodes = root[trees].long()[:, None] + place
        inner = place < 2**depth - 1
        expected = torch.where(inner, root[trees].long()[:, None] + 2 * place + 1, nodes)
        if not torch.equal(child[nodes].long(), expected):
            return None
        for level in range(depth):
            row = nodes[:, 2**level - 1 : 2 ** (level + 1) - 1]
            compared, border = feature[row], threshold[row]
            if bool((compared != compared[:, :1]).any()) or bool((border != border[:, :1]).any()):
                return None
            features[depth - 1 - level, trees] = compared[:, 0].long()
            thresholds[depth - 1 - level, trees] = border[:, 0]
    pairs = torch.stack([features.flatten().double(), thresholds.flatten().double()], dim=1)
    different, number = torch.unique(pairs, dim=0, return_inverse=True)
    return Levels(
        feature=different[:, 0].long(),
        threshold=different[:, 1].to(threshold.dtype),
        bit=number.reshape(deepest, len(root)),
        leaf=root.long() + 2**depths - 1,
    )


def taken(values: Tensor, places: Tensor) -> Tensor:
    """``values[places]`` for values in a row; indexing with square brackets takes several times as long."""
    return values.index_select(0, places.flatten()).view(places.shape)


def leaves_of(x: Tensor, levels: Levels) -> Tensor:
    """The node that each sample ends in, (trees, samples).

    Args:
        x: Inputs, (samples, columns).
        levels: What the trees compare.
    """
    compared = x.t().contiguous().index_select(0, levels.feature)
    deep = len(levels.bit)
    above = (compared > levels.threshold[:, None]).to(torch.uint8 if deep <= 8 else torch.int32)
    leaf = above.index_select(0, levels.bit[deep - 1])
    for level in reversed(range(deep - 1)):
        leaf = leaf * 2 + above.index_select(0, levels.bit[level])
    return leaf.long() + levels.leaf[:, None]
