"""Which rows train, which validate and which test: every rule by which rows are dealt out, on plain arrays.

The same seed deals the same rows out. There are several rules for drawing at random because published figures rest on
the rows that each data set has always held out; a new data set takes :func:`drawn` and :func:`fold_of`, which is what
``DataModule.split_rows`` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline.errors import UserError

Seed = int | Sequence[int]


def drawn(rows: int, fraction: float, seed: Seed, labels: np.ndarray | None = None) -> np.ndarray:
    """Draw a fraction of the rows at random.

    Args:
        rows: Number of rows to draw from.
        fraction: Share to draw; more than 0 draws at least one row.
        seed: Seed of the draw.
        labels: Class of each row, of which each gives its share; None draws without looking at classes.

    Returns:
        The numbers of the rows, ascending.
    """
    if not fraction:
        return np.arange(0)
    order, count = _shuffled(rows, seed, labels), max(1, round(rows * fraction))
    if labels is None:
        return np.sort(order[:count])
    return np.sort(order[np.linspace(0, rows - 1, count).round().astype(int)])


def drawn_but_the_first(
    rows: int, fraction: float, seed: Seed, labels: np.ndarray | None = None
) -> np.ndarray:
    """Draw as :func:`drawn` does, but never a class's first row: what training has never seen cannot be predicted."""
    order = _shuffled(rows, seed, labels)
    if labels is not None:
        order = order[np.flatnonzero(np.diff(labels[order], prepend=labels[order[:1]] - 1) == 0)]
    count = min(len(order), rows - 1, max(1, round(rows * fraction))) if fraction else 0
    # Every so many-th row of those sorted by label.
    places = ((np.arange(count) + 0.5) * (len(order) / max(1, count))).astype(int)
    return np.sort(order[places])


def fold_of(
    rows: int, folds: int, fold: int | None, seed: Seed, labels: np.ndarray | None = None
) -> np.ndarray:
    """The rows of one fold of a cross-validation, ascending.

    Args:
        rows: Number of rows that are dealt out.
        folds: Number of folds.
        fold: Number of the fold (0 … folds − 1); None is the first.
        seed: Seed of the order in which the rows are dealt out.
        labels: Class of each row, of which each fold gets its share; None deals out without looking at classes.

    Raises:
        UserError: There are fewer rows than folds.
    """
    at_least(rows, folds)
    # Dealing out rows sorted by class, one to each fold in turn, gives every fold its share of each class.
    return np.sort(_shuffled(rows, seed, labels)[(fold or 0) :: folds])


def at_least(rows: int, parts: int) -> None:
    """Refuse to split fewer rows than there are parts."""
    if rows < parts:
        raise UserError(
            f"{rows} samples cannot be split into {parts} parts; lower data.folds or bring more data"
        )


def in_turn(
    rows: int,
    test_fraction: float,
    validation_fraction: float,
    folds: int | None,
    fold: int | None,
    seed: Seed,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the rows (or blocks of rows) that train, validate and test, in turn from one random order."""
    order = _shuffled(rows, seed, None)
    tests = max(1, round(rows * test_fraction)) if test_fraction else 0
    test, pool = order[:tests], order[tests:]
    if folds:
        validation = pool[(fold or 0) :: folds]
    else:
        validation = pool[: max(1, round(len(pool) * validation_fraction)) if validation_fraction else 0]
    return np.setdiff1d(pool, validation), np.sort(validation), np.sort(test)


def latest(moments: np.ndarray, fraction: float) -> np.ndarray:
    """Which rows are of the latest ``fraction``; rows of one moment stay together."""
    if not fraction or not len(moments):
        return np.zeros(len(moments), dtype=bool)
    ordered = np.sort(moments)
    return np.asarray(moments >= ordered[min(len(ordered) - 1, first_of_last(len(ordered), fraction))])


def first_of_last(rows: int, fraction: float) -> int:
    """Where the last ``fraction`` of rows that are in the order of time begins."""
    return round(rows * (1 - fraction))


def stretch(rows: np.ndarray, folds: int, fold: int | None) -> np.ndarray:
    """One fold of rows that are in the order of time: a stretch of it."""
    return np.array_split(rows, folds)[fold or 0]


def shares_of_keys(keys: Sequence[str], seed: int) -> np.ndarray:
    """Two numbers from 0 to 1 for each key, (keys, 2), which stay the same whatever other keys there are.

    The first decides on the test, the second on the validation.
    """
    numbers = np.empty((len(keys), 2))
    for place, key in enumerate(keys):
        digest = hashlib.blake2b(
            key.encode(), digest_size=16, salt=seed.to_bytes(8, "little", signed=True)
        ).digest()
        numbers[place] = [int.from_bytes(half, "little") / 2**64 for half in (digest[:8], digest[8:])]
    return numbers


def _shuffled(rows: int, seed: Seed, labels: np.ndarray | None) -> np.ndarray:
    """All rows in a random order; with labels, sorted by them."""
    order = np.random.default_rng(seed).permutation(rows)
    return order if labels is None else order[np.argsort(labels[order], kind="stable")]
