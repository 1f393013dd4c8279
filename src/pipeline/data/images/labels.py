"""Several labels of one image: how tables write them, and targets of zeros and ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError

JOIN = "\0"
"""Between the labels of an image, where these are one text."""
SIGNS = ("|", ";", ",", " ")
"""What stands between the labels of a cell, as a rule; the first of them that occurs."""
_YES, _NO = (
    ("1", "1.0", "true", "yes", "y", "x"),
    ("", "0", "0.0", "false", "no", "n", "nan", "none", "null", "-1"),
)
"""What a column of one label says, in small letters (-1 for no is how CelebA is written)."""


def is_yes_or_no(values: Sequence[Any]) -> bool:
    """Whether a column says of each image whether it has one label."""
    words = {_word(value) for value in values}
    return words <= {*_YES, *_NO} and not words <= {"", "nan", "none", "null"}


def sign_of(cells: Sequence[str]) -> str | None:
    """What stands between the labels of cells; None where each cell is one label.

    A space is one where what it parts occurs in other cells too: labels may be of two words.

    Args:
        cells: Cells of the column, as they are written.
    """
    for sign in SIGNS[:-1]:
        if any(sign in cell for cell in cells):
            return sign
    whole = {cell.strip() for cell in cells if cell.strip()}
    parted = [cell for cell in whole if " " in cell]
    counts = Counter(part for cell in whole for part in set(cell.split()))
    recurring = sum(all(counts[part] > 1 for part in cell.split()) for cell in parted)
    return " " if parted and 2 * recurring >= len(parted) else None


def of_cell(cell: str, sign: str | None) -> str:
    """The labels of a cell, joined by ``JOIN`` in the order of the alphabet; empty for none."""
    parts = [cell] if sign is None else cell.split(sign)
    return JOIN.join(sorted({part.strip() for part in parts} - {""}))


def of_columns(path: Path, row: int, names: Sequence[str], values: Sequence[Any]) -> str:
    """The labels whose columns say yes, as :func:`of_cell` gives them.

    Args:
        path: The table, for messages.
        row: Number of the row, counted from 1 after the header.
        names: Names of the labels.
        values: What the row says of each.

    Raises:
        UserError: A value is neither yes nor no.
    """
    found = []
    for name, value in zip(names, values, strict=True):
        word = _word(value)
        if word in _YES:
            found.append(name)
        elif word not in _NO:
            raise UserError(
                f"{path}, row {row}: {value!r} in the column {name!r} is neither yes nor no; expected 1 or 0 (yes or "
                "no, true or false, empty for no), or name the columns of labels: data.target=[first,second]"
            )
    return JOIN.join(sorted(found))


def parted(label: str) -> list[str]:
    """The labels that :func:`of_cell` joined."""
    return label.split(JOIN) if label else []


def targets_of(labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """Zeros and ones, (images, labels), float.

    Args:
        labels: The labels of each image, joined.
        names: All labels, in the order of the columns.
    """
    place = {name: number for number, name in enumerate(names)}
    y = torch.zeros(len(labels), len(names))
    for row, label in enumerate(labels):
        for name in parted(label):
            y[row, place[name]] = 1.0
    return y


def strata_of(y: Tensor) -> np.ndarray:
    """The rarest label of each image, (images,), by which they are dealt out; those without any are a class too."""
    counts = y.sum(0)
    rarity = torch.where(y > 0, counts.expand_as(y), torch.inf)
    found: np.ndarray = torch.where(y.any(1), rarity.argmin(1), y.shape[1]).numpy()
    return found


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()
