"""Images that are nearly the same: saved once more, in another size, compression or brightness."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.core.splits import Rows
from pipeline.exploring.findings import Findings

SIDE, ALIKE = 16, 0.995
"""Images are compared in grey at this size; the correlation of their pixels from which on they are nearly the same."""
MOST = 5_000
"""Images of a split that are held against those of the training."""
_READ, _BLOCK = 512, 4_096
_SHOWN = 16


def look_for_near_duplicates(splits: dict[str, Rows], findings: Findings) -> None:
    """Note validation and test images that nearly are a training image; those that are the same are counted elsewhere.

    Args:
        splits: Splits by name, ``train`` among them.
        findings: Findings that are added to.
    """
    if "train" not in splits or len(splits) < 2:
        return
    known = outlines(splits["train"], torch.arange(len(splits["train"])))
    for name in ("validation", "test"):
        if (split := splits.get(name)) is None:
            continue
        rows = torch.arange(len(split))[:: -(-len(split) // MOST)]
        found = near(known, outlines(split, rows))
        pairs = []
        for place, other in found.items():
            row = int(rows[place])
            x, y = (
                one.take(torch.tensor([number]))[0]
                for one, number in ((split, row), (splits["train"], other))
            )
            if not torch.equal(x, y):
                pairs.append({"row": row, "train row": other})
        if not pairs:
            continue
        where = f"{name} nearly in train"
        findings.duplicates[where] = len(pairs)
        if name == "validation":
            findings.near = pairs[:_SHOWN]
        findings.warnings.append(
            f"{len(pairs)} of {len(rows)} {name} images that were looked at nearly are a training image (another size, "
            f"compression or brightness): what is measured on {name} is too good"
        )


def outlines(split: Rows, rows: Tensor) -> np.ndarray:
    """Small grey images with mean 0 and length 1, (rows, pixels); one without any contrast is all 0."""
    found = []
    for some in rows.split(_READ):
        x = split.take(some)[0].float().mean(1, keepdim=True)
        small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1)
        small = small - small.mean(1, keepdim=True)
        length = small.norm(dim=1, keepdim=True)
        found.append(torch.where(length > SIDE, small / length.clamp(min=1e-6), torch.zeros(())).numpy())
    return np.concatenate(found)


def near(known: np.ndarray, asked: np.ndarray) -> dict[int, int]:
    """The row of ``known`` that each row of ``asked`` nearly is; rows without one are left out."""
    best: np.ndarray = np.full(len(asked), -1.0)
    where: np.ndarray = np.zeros(len(asked), dtype=np.int64)
    for start in range(0, len(known), _BLOCK):
        alike: Any = asked @ known[start : start + _BLOCK].T
        top = alike.argmax(1)
        value = alike[np.arange(len(asked)), top]
        better = value > best
        best[better], where[better] = value[better], start + top[better]
    return {int(row): int(where[row]) for row in np.flatnonzero(best >= ALIKE)}
