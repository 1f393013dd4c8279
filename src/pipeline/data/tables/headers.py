"""The first line of a table: whether it names the columns, and how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.data.tables.dates import dates_of
from pipeline.data.tables.words import is_no_number, numbers_of

FEWEST = 3
"""Number of rows that it takes to tell a header from data."""


def clean_names(names: Sequence[str]) -> list[str]:
    """Names of columns without blanks around them; several without a name are called by their place (from 1).

    Where two names differ in blanks alone they stay as they are.
    """
    bare = [str(name).strip() for name in names]
    if bare.count("") > 1:
        bare = [name or f"unnamed_{place}" for place, name in enumerate(bare, start=1)]
    return [
        one if bare.count(one) == 1 else str(given).strip(" ") if not one else str(given)
        for one, given in zip(bare, names, strict=True)
    ]


def looks_like_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of some rows is no header but data like the others.

    It is where each cell is what its column is: a number or a date among such, a word that occurs below among words. A
    row of years, or of the numbers from 0 or 1, names columns.

    Args:
        rows: The first rows of a file, as they are written.
    """
    first, below = rows[0] if rows else [], [row for row in rows[1:] if len(row) == len(rows[0])]
    if len(below) < FEWEST or not first:
        return False
    numeric = 0
    for place, cell in enumerate(first):
        words = [row[place] for row in below]
        known = [word for word in words if not is_no_number(word)]
        if not known:
            continue
        numbers = _is_number(known)
        if numbers.mean() >= 0.9:
            if not is_no_number(cell) and not _is_number([cell])[0]:
                return False
            numeric += not is_no_number(cell)
        elif cell.strip() not in {word.strip() for word in words}:
            return False
    return numeric > 0 and not _counts_up(first)


def _is_number(words: Sequence[str]) -> np.ndarray:
    numbers = ~np.isnan(numbers_of(words)) | ~np.isnan(numbers_of(words, ","))
    return np.asarray(numbers | ~np.isnan(dates_of(words, "mdy")) | ~np.isnan(dates_of(words, "dmy")))


def _counts_up(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers that go up by one from 0 or 1, or years: names that programs give."""
    values = numbers_of([cell for cell in cells if cell.strip()])
    if len(values) < 2 or np.isnan(values).any() or (np.diff(values) != 1).any():
        return False
    return bool(values[0] in (0, 1) or 1800 <= values[0] <= 2100)
